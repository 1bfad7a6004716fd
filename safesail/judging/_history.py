"""What a judge was asked and answered so far: looked into, added up, forgotten."""

from __future__ import annotations

import math
import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from safesail.errors import InputError
from safesail.judging._cache_file import connect, describe, transaction
from safesail.judging._parsing import read_completion
from safesail.judging._questions import Question
from safesail.judging._responses import Response


class _AnyObject(BaseModel):
    """Any JSON object: the type that an answer had is not stored."""

    model_config = ConfigDict(extra="allow")


_ANY = Question("", "", [], _AnyObject, 0)


@dataclass(frozen=True)
class StoredAnswer:
    """An answer in the cache.

    Attributes:
        key: it is stored under.
        created_at: when it came, UTC, ISO 8601.
        url: base URL.
        model: asked there.
        task: of the question.
        version: of its prompt.
        replicate: number of the independent repetition.
        prompt_tokens: as the endpoint counted.
        completion_tokens: likewise, hidden ones included.
        reasoning_tokens: of these, the hidden ones.
        cost_usd: US dollars when it was paid for; None without a price.
        seconds: from sending to receiving, retries included.
        status_code: of HTTP.
        request: body as sent.
        response: body as received.
    """

    key: str
    created_at: str
    url: str
    model: str
    task: str
    version: str
    replicate: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    seconds: float
    status_code: int
    request: str
    response: str

    @property
    def status(self) -> Literal["answered", "refused", "unparseable"]:
        """What it reads as: `answered` is any JSON object, as the wanted type is not stored."""
        response = Response(self.status_code, self.response, 0, 0.0)
        if response.completion is None:
            return "refused" if response.filtered else "unparseable"
        return read_completion(response.completion, _ANY).status


@dataclass(frozen=True)
class Totals:
    """Answers to one task by one model, added up.

    Attributes:
        url: base URL.
        model: asked there.
        task: of the questions.
        answers: how many.
        prompt_tokens: in all.
        completion_tokens: in all, hidden ones included.
        reasoning_tokens: in all.
        cost_usd: US dollars of those that have a price; None where none has.
        unpriced: how many have none.
        median_seconds: of the time to an answer.
        p95_seconds: time within which 95 % came (nearest rank).
    """

    url: str
    model: str
    task: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    unpriced: int
    median_seconds: float
    p95_seconds: float


_COLUMNS = ", ".join(field.name for field in fields(StoredAnswer))


class History:
    """The answers of a cache file.

    Args:
        path: the file.

    Raises:
        InputError: there is none.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"no judge has answered yet: there is no {path}")
        self._path = path

    def answers(
        self,
        *,
        task: str | None = None,
        model: str | None = None,
        key: str | None = None,
        refused: bool = False,
    ) -> Iterator[StoredAnswer]:
        """Answers that fit everything that is given, the latest first.

        Args:
            task: of the question.
            model: that answered.
            key: the beginning of the answer's key.
            refused: only refusals.
        """
        wanted = {"task = ?": task, "model = ?": model, "substr(key, 1, length(?)) = ?": key}
        given = {condition: value for condition, value in wanted.items() if value is not None}
        where = " AND ".join(given) or "1"
        values = [value for condition, value in given.items() for _ in range(condition.count("?"))]
        order = "ORDER BY created_at DESC, rowid DESC"
        statement = f"SELECT {_COLUMNS} FROM answers WHERE {where} {order}"
        for row in self._rows(statement, values):
            found = StoredAnswer(*row)
            if not refused or found.status == "refused":
                yield found

    def one(self, key: str) -> StoredAnswer:
        """The answer whose key begins like this.

        Raises:
            InputError: there is none, or more than one.
        """
        found = list(self.answers(key=key))
        if len(found) != 1:
            count = "no answer" if not found else f"{len(found)} answers"
            raise InputError(f"{count} with a key that begins with {key!r}: see `judge log`")
        return found[0]

    def totals(self) -> list[Totals]:
        """Answers by base URL, model and task, in that order."""
        groups = defaultdict(list)
        columns = "prompt_tokens, completion_tokens, reasoning_tokens, cost_usd, seconds"
        for row in self._rows(
            f"SELECT url, model, task, {columns} FROM answers ORDER BY url, model, task", ()
        ):
            groups[row[:3]].append(row[3:])
        return [_add_up(group, rows) for group, rows in groups.items()]

    def forget(self, keys: Iterable[str]) -> int:
        """Delete answers, so that they are asked and paid for again; how many there were.

        Raises:
            StorageError: they could not be deleted; all are still there.
        """
        try:
            with closing(connect(self._path)) as connection, transaction(connection):
                done = connection.executemany(
                    "DELETE FROM answers WHERE key = ?", [(key,) for key in keys]
                )
                return done.rowcount
        except (sqlite3.Error, OSError) as error:
            raise describe(error, self._path) from error

    def qualifications(self) -> int:
        """How many reports of what judges were found to be worth there are."""
        ((found,),) = self._rows("SELECT count(*) FROM qualifications", ())
        return int(found)

    def forget_qualifications(self) -> None:
        """Delete what judges were found to be worth.

        Raises:
            StorageError: they could not be deleted; all are still there.
        """
        try:
            with closing(connect(self._path)) as connection, transaction(connection):
                connection.execute("DELETE FROM qualifications")
        except (sqlite3.Error, OSError) as error:
            raise describe(error, self._path) from error

    def _rows(self, statement: str, values: Iterable[object]) -> Iterator[tuple]:
        try:
            with closing(connect(self._path)) as connection:
                yield from connection.execute(statement, tuple(values))
        except (sqlite3.Error, OSError) as error:
            raise describe(error, self._path) from error


def _add_up(group: tuple[str, str, str], rows: list[tuple]) -> Totals:
    prompt, completion, reasoning, costs, seconds = zip(*rows, strict=True)
    priced = [cost for cost in costs if cost is not None]
    in_order = sorted(seconds)
    return Totals(
        *group,
        answers=len(rows),
        prompt_tokens=sum(prompt),
        completion_tokens=sum(completion),
        reasoning_tokens=sum(reasoning),
        cost_usd=sum(priced) if priced else None,
        unpriced=len(rows) - len(priced),
        median_seconds=statistics.median(in_order),
        p95_seconds=in_order[math.ceil(0.95 * len(in_order)) - 1],
    )
