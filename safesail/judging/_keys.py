"""The key that an answer is stored under: what was asked, where, and for which time."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from safesail.judging._dialects import Dialect, Form, Options, canonical, frame
from safesail.judging._questions import Message, Question

# How these stand in a JSON string that stands in another one. Without other control characters in
# a text, replacing them is several times as fast as an encoder that looks at each character.
_TWICE_ESCAPED = ((b"\\", rb"\\\\"), (b'"', rb"\\\""), (b"\n", rb"\\n"))
_OTHER_CONTROL = bytes(sorted({*range(32)} - {10}))
_USUAL = {"content", "role"}


def answer_key(
    url: str, dialect: Dialect, options: Options, question: Question, replicate: int
) -> str:
    """SHA-256 of base URL, request body and replicate, as a canonical JSON list, in hex.

    The body, canonical JSON itself, is a string in that list. As escaping goes character by
    character, the part that many questions share is escaped and hashed once.

    Raises:
        UnicodeEncodeError: a message holds half a surrogate pair.
    """
    first, *others = question.messages
    head, tail = _shared(url, dialect, options, Form.of(question), tuple(first.items()))
    digest = head.copy()
    for message in others:
        digest.update(b"," + _escaped_message(message))
    digest.update(b"%b%d]" % (tail, replicate))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _shared(
    url: str, dialect: Dialect, options: Options, form: Form, first: tuple[tuple[str, str], ...]
) -> tuple[hashlib._Hash, bytes]:
    """Hash of what comes before the second message, and what comes between last and replicate."""
    before, after = frame(dialect, options, form)
    head = f'[{canonical(url)},"{_escaped(before)}'.encode() + _escaped_message(dict(first))
    return hashlib.sha256(head), f'{_escaped(after)}",'.encode()


def _escaped_message(message: Message) -> bytes:
    """A message in canonical JSON as it stands between the quotes of a JSON string."""
    content = message["content"].encode()
    usual = message.keys() == _USUAL and message["role"].isalpha()
    if not usual or len(content.translate(None, _OTHER_CONTROL)) != len(content):
        return _escaped(canonical(message)).encode()
    for plain, escaped in _TWICE_ESCAPED:
        content = content.replace(plain, escaped)
    return rb"{\"content\":\"%b\",\"role\":\"%b\"}" % (content, message["role"].encode())


def _escaped(text: str) -> str:
    """Canonical JSON as it stands between the quotes of a JSON string."""
    return canonical(text)[1:-1]
