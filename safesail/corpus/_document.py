"""What a corpus is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_SURROGATE = re.compile("[\ud800-\udfff]")


class Message(NamedTuple):
    """One turn of a conversation: who speaks (`user`, `assistant`, `system` ...), and what."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """A text with an id that is the same in every run.

    Halves of surrogate pairs, which JSON and Python's strings can hold, become U+FFFD.

    Attributes:
        id: documents of one id are parts of one, and share a split.
        text: the text; of a conversation the contents, joined by blank lines.
        messages: what goes into the model's chat template; None where the text is read as it is.
    """

    id: str
    text: str
    messages: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _unicode(self.id))
        object.__setattr__(self, "text", _unicode(self.text))
        if self.messages is not None:
            messages = tuple(Message(*map(_unicode, message)) for message in self.messages)
            object.__setattr__(self, "messages", messages)


def _unicode(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
