"""Text that can be written and sent."""

from __future__ import annotations


def is_unicode(text: str) -> bool:
    """Whether text can be encoded as UTF-8: JSON can hold halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
