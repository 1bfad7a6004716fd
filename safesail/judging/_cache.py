"""Every answer that a judge gave, in SQLite, committed before it is used."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from safesail.judging._cache_file import (
    connect,
    describe,
    is_damage,
    move_aside,
    rescue,
    transaction,
)
from safesail.judging._responses import Response

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One stored answer; the fields are columns of the table `answers`."""

    key: str
    url: str
    model: str
    task: str
    version: str
    replicate: int
    request: str
    status_code: int
    response: str
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    seconds: float


@dataclass(frozen=True)
class StoredBatch:
    """A batch under way: the provider's id, the requests as JSON, when it was stored (UTC)."""

    id: str
    requests: str
    created_at: str


_COLUMNS = [*(field.name for field in fields(Entry)), "created_at"]
_INSERT = (
    f"INSERT OR IGNORE INTO answers ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)


class AnswerCache:
    """Answers by key. Several processes may share the file.

    A damaged file is moved aside with a warning and a new one begun, also in the middle of a run.

    Raises:
        StorageError: the file cannot be opened, was written by a newer safesail, stays locked, or
            cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Commits wait for the disk: they have a thread and a connection of their own, and answers
        # that arrive meanwhile share the next one.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers")
        self._arrived: list[tuple[Entry, asyncio.Future[None]]] = []
        self._storing: asyncio.Task[None] | None = None
        self._opening = threading.Lock()
        self._openings = 0
        try:
            self._open()
        except sqlite3.Error as error:
            self._begin_anew(error, self._openings)
        except OSError as error:
            raise describe(error, path) from error

    def get(self, key: str) -> Response | None:
        """The stored answer, if there is one."""
        row = self._run(
            lambda: self._connection.execute(
                "SELECT status_code, response, cost_usd FROM answers WHERE key = ?", (key,)
            ).fetchone()
        )
        return None if row is None else Response(row[0], row[1], 0, 0.0, row[2])

    def drop(self, key: str) -> None:
        """Forget an answer."""
        self._all("DELETE FROM answers WHERE key = ?", (key,))

    async def store(self, entry: Entry) -> None:
        """Store an answer; on return it is committed."""
        done = asyncio.get_running_loop().create_future()
        self._arrived.append((entry, done))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_all())
        await done

    async def drain(self) -> None:
        """Wait until all that arrived is committed, also where nobody waits for it any more."""
        if self._storing is not None:
            await self._storing

    def put(self, entry: Entry) -> None:
        """Store an answer at once, as part of a transaction where there is one."""
        self._run(lambda: self._connection.execute(_INSERT, _values(entry)))

    def dialects(self, url: str, model: str) -> list[str]:
        """Dialects that the endpoint's model was found to take, the one in force first."""
        rows = self._all(
            "SELECT dialect FROM dialects WHERE url = ? AND model = ? ORDER BY position DESC",
            (url, model),
        )
        return [str(dialect) for (dialect,) in rows]

    def add_dialect(self, url: str, model: str, dialect: str) -> None:
        """Remember a dialect as the one in force."""
        self._all(
            "INSERT INTO dialects (url, model, dialect) VALUES (?, ?, ?)", (url, model, dialect)
        )

    def add_batch(self, id: str, url: str, model: str, requests: str) -> None:
        """Remember a batch until it has ended."""
        self._all(
            "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, ?)",
            (id, url, model, requests, _now()),
        )

    def rename_batch(self, id: str, new: str) -> None:
        """Give a batch another id."""
        self._all("UPDATE OR REPLACE batches SET id = ? WHERE id = ?", (new, id))

    def open_batches(self, url: str, model: str) -> list[StoredBatch]:
        """Batches under way."""
        rows = self._all(
            "SELECT id, requests, created_at FROM batches WHERE url = ? AND model = ?",
            (url, model),
        )
        return [StoredBatch(*row) for row in rows]

    def end_batch(self, id: str) -> None:
        """Forget a batch."""
        self._all("DELETE FROM batches WHERE id = ?", (id,))

    def add_qualification(self, url: str, model: str, report: str) -> None:
        """Keep what a judge was found to be worth, as JSON."""
        self._all(
            "INSERT INTO qualifications (url, model, created_at, report) VALUES (?, ?, ?, ?)",
            (url, model, _now(), report),
        )

    def qualifications(self, url: str, model: str) -> list[str]:
        """The reports on a judge as JSON, the latest first."""
        rows = self._all(
            "SELECT report FROM qualifications WHERE url = ? AND model = ? ORDER BY position DESC",
            (url, model),
        )
        return [str(report) for (report,) in rows]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within is committed together, or not at all."""
        try:
            with transaction(self._connection):
                yield
        except sqlite3.Error as error:
            raise describe(error, self._path) from error

    def close(self) -> None:
        """Close the file; whoever stores answers drains first."""
        self._thread.shutdown()
        self._connection.close()
        self._writer.close()

    async def _store_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._arrived:
            group, self._arrived = self._arrived, []
            entries = [entry for entry, _ in group]
            try:
                await loop.run_in_executor(self._thread, self._commit, entries)
            except Exception as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
                        done.exception()  # seen: whoever waited may have been cancelled
            else:
                for _, done in group:
                    if not done.done():
                        done.set_result(None)
        self._storing = None

    def _commit(self, entries: Sequence[Entry]) -> None:
        def write() -> None:
            with transaction(self._writer):
                self._writer.executemany(_INSERT, map(_values, entries))

        self._run(write)

    def _all(self, statement: str, values: Sequence[object]) -> list[tuple]:
        return self._run(lambda: self._connection.execute(statement, values).fetchall())

    def _run(self, work: Callable[[], T]) -> T:
        """Do something with the file, in a new one where it turns out to be damaged."""
        opening = self._openings
        try:
            return work()
        except sqlite3.Error as error:
            self._begin_anew(error, opening)
        try:
            return work()
        except sqlite3.Error as error:
            raise describe(error, self._path) from error

    def _open(self) -> None:
        # Connections that were there before are left to whoever is using them just now.
        self._connection = connect(self._path)
        self._writer = connect(self._path)
        self._identity = _identity(self._path)
        self._openings += 1

    def _begin_anew(self, error: sqlite3.Error, opening: int) -> None:
        """Put a new file in the place of a damaged one.

        Args:
            error: what it was found out by; another one than damage is raised.
            opening: number of the opening in which it came up.
        """
        if not is_damage(error):
            raise describe(error, self._path) from error
        with self._opening:
            if opening != self._openings:
                return  # the other thread was faster
            try:
                # Another process may have been faster too.
                theirs = opening and _identity(self._path) != self._identity
                aside = None if theirs else move_aside(self._path)
                self._open()
                if aside is not None:
                    self._report(aside, rescue(aside, self._writer))
            except (sqlite3.Error, OSError) as fault:
                raise describe(fault, self._path) from fault

    def _report(self, aside: Path, rescued: int) -> None:
        warnings.warn(
            f"the judge's answers in {self._path} were damaged: the file is now {aside.name}, a "
            f"new one holds the {rescued:,} answers that could be read, the others are asked again",
            stacklevel=2,
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _values(entry: Entry) -> tuple:
    return (*(getattr(entry, name) for name in _COLUMNS[:-1]), _now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
