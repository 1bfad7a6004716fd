"""The index behind the search: explanations, contexts and concepts of each feature, in SQLite.

One document per feature. SQLite's FTS5 cuts text into words; scripts that write no spaces have
each character for a word, so that any part of a sentence is found.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from safesail.errors import StorageError
from safesail.explorer._catalog import Catalog, files_signature

if TYPE_CHECKING:
    from safesail.study import Study

_VERSION = 1
# Between contexts, a word that nobody searches: no phrase is found across two of them.
BREAK = "\ue000"
# Invisible, and no part of a word: taken out again before text is shown.
JOINT = "\u200b"
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u30ff\u3400-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff])"
)
_SCHEMA = """
CREATE TABLE made (signature TEXT);
CREATE TABLE documents (number INTEGER PRIMARY KEY, sae TEXT, feature INTEGER);
CREATE VIRTUAL TABLE words USING fts5(
  explanations, contexts, concepts, tokenize = "unicode61 remove_diacritics 2"
);
"""


def separated(text: str) -> str:
    """Text whose characters of unspaced scripts are words of their own."""
    return _UNSPACED.sub(JOINT + r"\1" + JOINT, text)


def index_file(study: Study) -> Path:
    """Where a study's index lies; it can be deleted, and is then built again."""
    return study.folder / "explorer" / "index.sqlite"


def index_signature(study: Study, catalog: Catalog) -> str:
    """What tells an index of the present files apart from an older one."""
    contexts = files_signature(study, list(study.folder.glob("contexts/*/part-*.parquet")))
    # Corrections are searched where they are: few, and often changed.
    tables = [entry for entry in catalog.signature if entry[0] != "corrections.jsonl"]
    return json.dumps([_VERSION, *tables, *contexts])


def read_signature(path: Path) -> str | None:
    """The signature of the files that an index was made from; None where there is no index."""
    if not path.exists():
        return None
    try:
        with closing(open_index(path)) as connection:
            row = connection.execute("SELECT signature FROM made").fetchone()
    except sqlite3.Error:
        return None  # damaged, or of something else: it is built again
    return str(row[0]) if row else None


def open_index(path: Path) -> sqlite3.Connection:
    """An index to read from."""
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)


def build_index(
    study: Study, catalog: Catalog, progress: Callable[[int, int], None] = lambda done, of: None
) -> None:
    """Write the index of a study's present tables, whole or not at all.

    Args:
        study: the study.
        catalog: its small tables.
        progress: told how many features of how many are in the index.

    Raises:
        StorageError: the disk is full, the folder not writable, or contexts cannot be read.
    """
    path = index_file(study)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".index.")
        os.close(descriptor)
        with closing(sqlite3.connect(temporary)) as connection:
            # Nobody reads the file before it is whole: no journal is needed.
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            connection.executescript(_SCHEMA)
            _fill(connection, study, catalog, progress)
            connection.execute("INSERT INTO made VALUES (?)", (index_signature(study, catalog),))
            connection.commit()
        os.replace(temporary, path)
        temporary = None
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"could not write {path}: {error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _fill(
    connection: sqlite3.Connection,
    study: Study,
    catalog: Catalog,
    progress: Callable[[int, int], None],
) -> None:
    known = _explanations(catalog)
    done = 0
    for sae in sorted({sae for sae, _ in catalog.numbers}):
        own = {feature for owner, feature in catalog.numbers if owner == sae}
        for feature, contexts in _contexts(study.contexts(sae)):
            if feature in own:  # contexts of features that are chosen no more have no page
                own.discard(feature)
                _add(connection, sae, feature, known, contexts)
                done += 1
                progress(done, len(catalog.numbers))
        for feature in sorted(own):
            _add(connection, sae, feature, known, "")
        done += len(own)
        progress(done, len(catalog.numbers))


def _add(
    connection: sqlite3.Connection,
    sae: str,
    feature: int,
    known: dict[tuple[str, int], dict[str, Any]],
    contexts: str,
) -> None:
    row = known[sae, feature]
    cursor = connection.execute(
        "INSERT INTO documents (sae, feature) VALUES (?, ?)", (sae, feature)
    )
    texts = (f" {BREAK} ".join(row["explanations"]), contexts, " ".join(row["concepts"]))
    connection.execute(
        "INSERT INTO words (rowid, explanations, contexts, concepts) VALUES (?, ?, ?, ?)",
        (cursor.lastrowid, *map(separated, texts)),
    )


def _explanations(catalog: Catalog) -> dict[tuple[str, int], dict[str, Any]]:
    rows = catalog.rows(
        "SELECT sae, feature, any_value(c.concepts) AS concepts, coalesce(list(e.explanation) "
        "FILTER (e.explanation IS NOT NULL), []) AS explanations "
        "FROM catalog AS c LEFT JOIN explanations AS e USING (sae, feature) GROUP BY sae, feature"
    )
    return {(row["sae"], row["feature"]): row for row in rows}


def _contexts(folder: Path) -> Iterator[tuple[int, str]]:
    """Each feature with the text of its active contexts; files are sorted by feature."""
    for shard in sorted(folder.glob("part-*.parquet")):
        feature: int | None = None
        texts: dict[str, None] = {}
        try:
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(
                    batch_size=8_192, columns=["feature", "kind", "tokens"]
                ):
                    active = batch.filter(pc.equal(batch["kind"], "active"))
                    joined = pc.binary_join(active["tokens"], "").to_pylist()
                    for number, text in zip(active["feature"].to_pylist(), joined, strict=True):
                        if number != feature:
                            if feature is not None:
                                yield feature, f" {BREAK} ".join(texts)
                            feature, texts = number, {}
                        texts[text] = None
        except OSError as error:
            raise StorageError(f"cannot read {shard}: {error}") from error
        if feature is not None:
            yield feature, f" {BREAK} ".join(texts)
