"""Text from models and corpora, made fit to be shown: nothing steers, nothing is unencodable."""

from __future__ import annotations

from typing import Any

# Controls become the signs that Unicode has for them; what has no sign, a replacement character.
_SIGNS: dict[int, int | str] = {
    **{number: 0x2400 + number for number in range(0x20)},
    ord("\n"): "⏎",
    ord("\t"): "⇥",
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **dict.fromkeys((0x2028, 0x2029), "⏎"),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # halves of surrogate pairs
}


def visible(text: str) -> str:
    """Text with control characters and broken surrogates replaced by visible signs.

    Marks of direction stay, for right-to-left scripts need them: pages isolate each text.
    """
    return text if text.isprintable() else text.translate(_SIGNS)


def shown(value: Any) -> Any:
    """What a template prints for a value: text made visible, nothing for None."""
    if value.__class__ is str:
        return visible(value)
    return "" if value is None else value


def cut(text: str, length: int) -> str:
    """The beginning of a long text, marked as such."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
