"""Rows of a source as documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safesail.corpus._datasets import hub_rows
from safesail.corpus._document import Document, Message
from safesail.corpus._files import Row, file_rows
from safesail.errors import InputError
from safesail.study import CorpusSource


def read_source(
    source: CorpusSource, parts: Sequence[tuple[str, Path | None]]
) -> Iterator[Document]:
    """Documents of one source; rows whose text is blank are passed over.

    Args:
        source: its settings.
        parts: what the ids of each file's documents begin with, and the file; None is the hub.

    Raises:
        InputError: a file or row cannot be read; it is named.
    """
    columns = list(dict.fromkeys(filter(None, [source.text_column, source.id_column])))
    for name, path in parts:
        rows = file_rows(path, source.split, columns) if path else hub_rows(source, columns)
        yield from _documents(source, name, rows)


def _documents(source: CorpusSource, name: str, rows: Iterable[Row]) -> Iterator[Document]:
    for number, row in enumerate(rows, start=1):
        where = f"{name}, row {number}"
        value = _cell(row, source.text_column, "text_column", where)
        messages = _messages(value, source, where)
        if messages is None:
            continue
        text = "\n\n".join(message.content for message in messages if message.content.strip())
        if not text:
            continue
        id = f"{name}:{number}"
        if source.id_column is not None:
            value = _cell(row, source.id_column, "id_column", where)
            id = "" if value is None else str(value)
            if not id.strip():
                raise InputError(
                    f"{where}: no id in {source.id_column!r}: "
                    "give every row one, or leave id_column out"
                )
        yield Document(id, text, messages if source.chat_template else None)


def _cell(row: Row, column: str, setting: str, where: str) -> Any:
    if column not in row:
        names = ", ".join(map(str, row))
        raise InputError(f"{where}: no column {column!r}; there are {names}: set {setting}")
    return row[column]


def _messages(value: Any, source: CorpusSource, where: str) -> tuple[Message, ...] | None:
    """What a row holds as messages, a plain text as a user's; None where it holds nothing."""
    if value is None:
        return None
    if isinstance(value, str):
        return (Message("user", value),)
    if not isinstance(value, list):
        raise InputError(f"{where}: {source.text_column!r} is not text")
    if not source.chat_template:
        raise InputError(
            f"{where}: {source.text_column!r} holds a list, not text: "
            "if these are messages, set chat_template = true"
        )
    return tuple(_message(item, place, where) for place, item in enumerate(value, start=1))


def _message(item: Any, place: int, where: str) -> Message:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        raise InputError(f"{where}: message {place} is not an object with role and content")
    if not isinstance(item.get("content"), str):
        raise InputError(
            f"{where}: the content of message {place} is not a string "
            "(images and other parts are not read): leave such rows out"
        )
    return Message(item["role"], item["content"])
