"""Documents of the planted world: labelled clauses, how they are joined, contrast pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from safesail.lab.lexicon import Lexicon

Kind = Literal["concept", "lookalike", "neutral"]


@dataclass(frozen=True, slots=True)
class Clause:
    """Character span [start, end) of a clause; `concept` is a child path or empty."""

    start: int
    end: int
    concept: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its clauses, which cover it but for the spaces between them."""

    name: str
    text: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """Two texts alike but for the concept (a child path), which only `positive` carries."""

    concept: str
    positive: str
    negative: str


class Piece(NamedTuple):
    """A clause before it is joined to others; `follows` says that the one before brought it."""

    words: str
    concept: str
    kind: Kind
    follows: bool


def bare_clauses(documents: Iterable[Document], lexicon: Lexicon) -> set[str]:
    """The documents' clauses without linking words and final punctuation, in lower case."""
    links = [f"{link}, " for link in (*lexicon.links_same, *lexicon.links_new)] + ["and "]
    bare = set()
    for document in documents:
        for clause in document.clauses:
            words = document.text[clause.start : clause.end].lower().rstrip(".,")
            for link in links:
                words = words.removeprefix(link)
            bare.add(words)
    return bare


def join_pieces(name: str, pieces: Sequence[Piece], lexicon: Lexicon, random: Random) -> Document:
    """Joins clauses into sentences; a clause's span holds its linking word and punctuation."""
    joined = [piece.follows and random.random() < 0.4 for piece in pieces]
    text = ""
    clauses = []
    for index, piece in enumerate(pieces):
        words = piece.words
        if joined[index]:
            words = f"and {words}"
        else:
            if index > 0:
                links = lexicon.links_same if piece.follows else lexicon.links_new
                words = f"{random.choice(links)}, {words}"
            words = words[0].upper() + words[1:]
        words += "," if index + 1 < len(pieces) and joined[index + 1] else "."
        start = len(text) + (index > 0)
        text = f"{text} {words}" if text else words
        clauses.append(Clause(start, len(text), piece.concept, piece.kind))
    return Document(name, text, tuple(clauses))
