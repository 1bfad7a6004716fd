"""The file of stored answers: its tables from version to version, and what to do with its faults.

Migrations are numbered by their place and never changed: a file of an older version goes through
those it lacks, a file of a newer one is refused.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from safesail.errors import StorageError

LOCKED_SECONDS = 60.0
# SQLite's pages in memory, in KiB: the index of some hundred thousand answers.
_PAGES_KIB = 32_768
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")

_MIGRATIONS = (
    (
        """
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
        )
        """,
        """
        CREATE TABLE IF NOT EXISTS dialects (
            position INTEGER PRIMARY KEY,  -- the last one of an endpoint's model is in force
            url TEXT NOT NULL,
            model TEXT NOT NULL,
            dialect TEXT NOT NULL          -- JSON: which options the endpoint takes
        )
        """,
    ),
    (
        # Of the completion tokens, those that were not shown.
        "ALTER TABLE answers ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0",
        # US dollars when it was paid for; null without a price.
        "ALTER TABLE answers ADD COLUMN cost_usd REAL",
        """
        CREATE TABLE batches (
            id TEXT PRIMARY KEY,        -- the provider's, or of the input file until created
            url TEXT NOT NULL,
            model TEXT NOT NULL,
            requests TEXT NOT NULL,     -- JSON: what was asked, and the keys of the answers
            created_at TEXT NOT NULL    -- UTC, ISO 8601
        )
        """,
        """
        CREATE TABLE qualifications (
            position INTEGER PRIMARY KEY,  -- the last one of an endpoint's model counts
            url TEXT NOT NULL,
            model TEXT NOT NULL,
            created_at TEXT NOT NULL,      -- UTC, ISO 8601
            report TEXT NOT NULL           -- JSON
        )
        """,
    ),
)
_VERSION = len(_MIGRATIONS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, make or migrate its tables.

    The connection commits each statement and may be used by any thread, one at a time.

    Raises:
        StorageError: a newer safesail wrote it.
        sqlite3.Error: SQLite cannot use it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(
        path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _refuse_newer(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        # An answer is paid for: it survives a power cut too, for milliseconds a commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_PAGES_KIB}")
        if _version(connection) < _VERSION:
            with transaction(connection):
                # Another process may have been here since.
                for statements in _MIGRATIONS[_version(connection) :]:
                    for statement in statements:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            _refuse_newer(connection, path)
        # Reads what is not read until it is asked for.
        connection.execute("SELECT count(*) FROM dialects").fetchone()
        connection.execute("SELECT 1 FROM answers LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; on return it is committed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is no database, or a broken one."""
    # Only text that is UTF-8 is ever stored; the second kind of error has no name.
    return _name(error).startswith(_DAMAGED) or "Could not decode to UTF-8" in str(error)


def move_aside(path: Path) -> Path:
    """Move a damaged file and what belongs to it out of the way; where it is now.

    Raises:
        OSError: it cannot be moved.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    for ending in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    return aside


def rescue(damaged: Path, connection: sqlite3.Connection) -> int:
    """Copy what can be read of a damaged file into a new one; the number of answers there."""
    with contextlib.closing(
        sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
    ) as source:
        for table in ("dialects", "batches", "qualifications", "answers"):
            # Each direction reads up to where the file is broken.
            for direction in ("ASC", "DESC"):
                with contextlib.suppress(sqlite3.Error), transaction(connection):
                    _copy(source, connection, table, direction)
    return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])


def _copy(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str, direction: str
) -> None:
    rows = source.execute(f"SELECT * FROM {table} ORDER BY rowid {direction}")
    names = [column[0] for column in rows.description]
    marks = ", ".join("?" * len(names))
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})"
    while True:
        try:
            row = rows.fetchone()
        except sqlite3.Error:
            return
        if row is None:
            return
        target.execute(insert, row)


def describe(error: Exception, path: Path) -> StorageError:
    """What to tell the user of an error."""
    if isinstance(error, sqlite3.Error) and _name(error).startswith(_LOCKED):
        return StorageError(
            f"the judge's answers in {path} are locked by another process for more than "
            f"{LOCKED_SECONDS:g} s: let it end, or stop it"
        )
    if isinstance(error, sqlite3.Error) and is_damage(error):
        return StorageError(
            f"the judge's answers in {path} are damaged: {error}; the next run that asks the judge "
            "moves the file aside and keeps what is readable"
        )
    return StorageError(
        f"cannot use the judge's answers in {path}: {error}; free space or mend permissions"
    )


def _refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    found = _version(connection)
    if found > _VERSION:
        raise StorageError(
            f"{path} holds answers of version {found}, this safesail reads up to version "
            f"{_VERSION}: move the file away, or use the safesail that wrote it"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""
