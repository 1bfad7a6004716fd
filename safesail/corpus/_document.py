"""What a corpus is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Message(NamedTuple):
    """One turn of a conversation: who speaks (`user`, `assistant`, `system` ...), and what."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """A text with an id that is the same in every run.

    Attributes:
        id: documents of one id are parts of one, and share a split.
        text: the text; of a conversation the contents, joined by blank lines.
        messages: what goes into the model's chat template; None where the text is read as it is.
    """

    id: str
    text: str
    messages: tuple[Message, ...] | None = None
