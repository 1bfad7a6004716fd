"""Every answer that a judge gave, in SQLite, committed before it is used."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safesail.errors import StorageError

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,       -- SHA-256 of base URL, request body as sent, replicate
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    version TEXT NOT NULL,      -- of the prompt
    replicate INTEGER NOT NULL,
    request TEXT NOT NULL,      -- body as sent
    status_code INTEGER NOT NULL,
    response TEXT NOT NULL,     -- body as received
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,      -- from sending to receiving, retries included
    created_at TEXT NOT NULL    -- UTC, ISO 8601
);
CREATE TABLE IF NOT EXISTS dialects (
    position INTEGER PRIMARY KEY,  -- the last one of an endpoint's model is in force
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    dialect TEXT NOT NULL          -- JSON: which options the endpoint takes
);
"""


@dataclass(frozen=True)
class Entry:
    """One stored answer; the fields are the columns of the table `answers`."""

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
    seconds: float


class AnswerCache:
    """Answers by key. Several processes may share the file.

    Raises:
        StorageError: the file cannot be opened, is no answer cache, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reported():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # An answer is paid for: it survives a power cut too, for milliseconds a commit.
            self._connection.execute("PRAGMA synchronous = FULL")
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found not in (0, _VERSION):
                raise StorageError(
                    f"{path} holds answers of version {found}, this safesail reads version "
                    f"{_VERSION}: move the file away, or use the safesail that wrote it"
                )
            self._connection.executescript(_TABLES)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def get(self, key: str) -> tuple[int, str] | None:
        """Status code and body of the stored answer, if there is one."""
        with self._reported():
            row = self._connection.execute(
                "SELECT status_code, response FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def put(self, entry: Entry) -> None:
        """Store an answer; on return it is committed."""
        values = (*vars(entry).values(), datetime.now(UTC).isoformat(timespec="seconds"))
        marks = ", ".join("?" * len(values))
        with self._reported():
            self._connection.execute(f"INSERT OR IGNORE INTO answers VALUES ({marks})", values)

    def dialects(self, url: str, model: str) -> list[str]:
        """Dialects that the endpoint's model was found to take, the one in force first."""
        with self._reported():
            rows = self._connection.execute(
                "SELECT dialect FROM dialects WHERE url = ? AND model = ? ORDER BY position DESC",
                (url, model),
            ).fetchall()
        return [str(dialect) for (dialect,) in rows]

    def add_dialect(self, url: str, model: str, dialect: str) -> None:
        """Remember a dialect as the one in force."""
        with self._reported():
            self._connection.execute(
                "INSERT INTO dialects (url, model, dialect) VALUES (?, ?, ?)",
                (url, model, dialect),
            )

    def close(self) -> None:
        """Close the file; what was put is on disk already."""
        self._connection.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"cannot use the judge's answers in {self._path}: {error}; "
                "free space or mend permissions; if it is no SQLite file, move it away"
            ) from error
