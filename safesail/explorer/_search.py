"""Find features by words of their explanations, contexts and concepts."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safesail.errors import StorageError
from safesail.explorer._catalog import Catalog
from safesail.explorer._index import (
    BREAK,
    JOINT,
    build_index,
    index_file,
    index_signature,
    open_index,
    read_signature,
    separated,
)
from safesail.study import Study

# Marks around what was found, in snippets: characters that no text has once it is shown.
OPENING, CLOSING = "\x01", "\x02"
_QUOTED = re.compile(r'"([^"]*)"?|(\S+)')
_WORD = re.compile(r"[^\W_]")
_MOST_TERMS = 12
_SNIPPET_WORDS = 16


@dataclass(frozen=True)
class Terms:
    """What somebody searches, cut into words and phrases.

    Attributes:
        words: each a word or a quoted phrase; all must occur.
        open: whether the last one may be the beginning of a word.
    """

    words: tuple[str, ...]
    open: bool

    @classmethod
    def of(cls, text: str) -> Terms:
        """Words of a search; text between double quotes is a phrase, what has no letter is none."""
        found = [a or b for a, b in _QUOTED.findall(text)]
        words = tuple(word for word in found if _WORD.search(word))[:_MOST_TERMS]
        # Of one letter alone, a third of all words would be the continuation.
        long = bool(words) and (len(words[-1]) > 1)
        return cls(words, long and not text.rstrip().endswith('"'))

    def to_fts(self) -> str:
        """The query in FTS5's language: quoted strings alone, so that nothing acts as operator."""
        # NUL would end the query, and a quote the string.
        words = (word.replace("\0", "").replace('"', "") for word in self.words)
        return " ".join(f'"{separated(word)}"' for word in words) + (" *" if self.open else "")


class Search:
    """Finds features; builds its index when the tables have changed, in a thread of its own.

    Attributes:
        state: a line on the index where it is not up to date, else empty.
    """

    def __init__(self, study: Study, report: Callable[[str], None] = lambda line: None) -> None:
        self._study = study
        self._report = report
        self._building = threading.Lock()
        self._local = threading.local()
        self._edition = 0
        self.state = ""

    def refresh(self, catalog: Catalog, *, wait: bool = False) -> None:
        """See to it that the index is of the catalog's tables; pages go on meanwhile."""
        if read_signature(index_file(self._study)) == index_signature(self._study, catalog):
            return
        if wait:
            self._build(catalog)
        elif not self._building.locked():
            threading.Thread(target=self._build, args=(catalog,), daemon=True).start()

    def _build(self, catalog: Catalog) -> None:
        with self._building:
            last = -1

            def progress(done: int, of: int) -> None:
                nonlocal last
                percent = 100 * done // max(of, 1)
                self.state = f"The index for the search is being built: {percent} %."
                if percent // 10 > last:
                    last = percent // 10
                    self._report(f"building the index for the search: {percent} %")

            try:
                build_index(self._study, catalog, progress)
            except StorageError as error:
                self.state = f"The search finds explanations only: {error}."
                self._report(str(error))
                return
            self._edition += 1
            self.state = ""

    def hits(self, catalog: Catalog, text: str) -> list[int]:
        """Rows of the catalog that hold all words of a text, best first."""
        terms = Terms.of(text)
        if not terms.words:
            return []
        numbers = catalog.numbers
        found = [numbers[key] for key in _of_number(catalog, text)]
        found += [numbers[key] for key in _corrected(catalog, terms) if key in numbers]
        connection = self._connection()
        if connection is None:
            found += _in_explanations(catalog, terms)
        else:
            rows = connection.execute(
                "SELECT sae, feature FROM words JOIN documents ON number = words.rowid "
                "WHERE words MATCH ? ORDER BY bm25(words, 8.0, 1.0, 4.0)",
                (terms.to_fts(),),
            )
            found += [numbers[row] for row in rows if row in numbers]
        return list(dict.fromkeys(found))

    def snippets(self, text: str, features: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """Where some features hold the words: a few words around, what was found between marks."""
        terms = Terms.of(text)
        connection = self._connection()
        if connection is None or not terms.words or not features:
            return {}
        keys = " OR ".join(["(sae = ? AND feature = ?)"] * len(features))
        rows = connection.execute(
            f"SELECT sae, feature, snippet(words, 1, ?, ?, '…', {_SNIPPET_WORDS}) "
            "FROM words JOIN documents ON number = words.rowid "
            f"WHERE words MATCH ? AND ({keys})",
            (OPENING, CLOSING, terms.to_fts(), *(value for key in features for value in key)),
        )
        return {(sae, feature): _plain(found) for sae, feature, found in rows if OPENING in found}

    def _connection(self) -> sqlite3.Connection | None:
        """This thread's own connection to the newest index; None where there is none."""
        if getattr(self._local, "edition", None) != self._edition or self._local.index is None:
            path = index_file(self._study)
            usable = read_signature(path) is not None
            self._local.index = open_index(path) if usable else None
            self._local.edition = self._edition
        connection: sqlite3.Connection | None = self._local.index
        return connection


def _plain(snippet: str) -> str:
    """A snippet of one context, without what the index needs."""
    parts = snippet.split(BREAK)
    marked = next((part for part in parts if OPENING in part), "")
    return marked.replace(JOINT, "").strip()


def _of_number(catalog: Catalog, text: str) -> list[tuple[str, int]]:
    """Features whose index the text is, of all SAEs."""
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        return []
    return sorted(key for key in catalog.numbers if key[1] == int(text))


def _corrected(catalog: Catalog, terms: Terms) -> list[tuple[str, int]]:
    """Features whose corrections hold all words."""
    words = [word.casefold() for word in terms.words]
    found = []
    for correction in catalog.corrections:
        value: Any = correction.value
        text = (value if isinstance(value, str) else " ".join(value)).casefold()
        if all(word in text for word in words):
            found.append((correction.sae, correction.feature))
    return found


def _in_explanations(catalog: Catalog, terms: Terms) -> list[int]:
    """Without an index: features whose best explanation holds all words, wherever in a word."""
    values = {f"word{n}": word.lower() for n, word in enumerate(terms.words)}
    conditions = " AND ".join(f"contains(lower(explanation), ${name})" for name in values)
    rows = catalog.rows(f"SELECT id FROM catalog WHERE {conditions} ORDER BY id", values)
    return [row["id"] for row in rows]
