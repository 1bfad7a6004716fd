"""What an explanation names, and which words of a text lie in it.

An explanation names concepts (`violence`), children (`violence/assault`), neutral topics, quoted
words, classes of words, and the part of the clause that matters. What it says of silence is left
out: a concept already tells its combinations from look-alikes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal, TypeVar

from safesail.lab.judge._knowledge import Place, Reading
from safesail.lab.judge._words import KINDS, Part, phrases, units

ALL_PARTS: frozenset[Part] = frozenset({"act", "between", "object", "rest"})

T = TypeVar("T")
Kind = Literal["clause", "act", "object", "class", "word"]
Where = Literal["at", "next", "on"]

_QUOTED = re.compile(r'"([^"\n]{1,80})"|“([^”\n]{1,80})”|「([^」\n]{1,80})」')
_PLACE = re.compile("\x00([0-9]+)\x00")
_PIECE = re.compile(r"[;.；。\n]")
_SILENCE = re.compile(
    r"\b(?:silent|inactive|not active|but not|except|excluding|rather than|unlike)\b|不激活|静默",
    re.IGNORECASE,
)
_ALSO = re.compile(r"\balso\b|另见于")
# Words of their own, which say little when they stand without their concept.
_COMMON = frozenset({"using", "making", "dealing", "cutting", "threat", "office", "film", "daily"})
_KINDS: tuple[tuple[str, Kind], ...] = (
    (r"act words|动词", "act"),
    (r"object words|宾语词", "object"),
)
_PARTS: tuple[tuple[str, frozenset[Part]], ...] = (
    (r"at and right after the act|动作及其后", frozenset({"act", "between"})),
    (r"right after the act|动作之后", frozenset({"between"})),
    (r"at the (?:act|verb)|动作处", frozenset({"act"})),
    (r"at and after the object|宾语及其后", frozenset({"object", "rest"})),
    (r"after the object|宾语之后", frozenset({"rest"})),
    (r"at the (?:object|target|victim)|宾语处", frozenset({"object"})),
    (r"at words such as|动作与宾语", frozenset({"act", "between", "object"})),
)
_WHERE: tuple[tuple[str, Where], ...] = (
    (r"right after|紧随", "next"),
    (r"at and after|及其后", "on"),
)


@dataclass(frozen=True)
class Term:
    """One thing that an explanation names.

    Attributes:
        kind: `clause`: clauses that show a child or a topic; `act` and `object`: what opens and
            what completes a child's clauses, whatever it stands with; `class`: words of a class;
            `word`: quoted words and phrases.
        names: children and topics, classes, or words in lower case.
        parts: of the clause in which a clause, an act or an object counts.
        where: a word counts `at` itself, at the `next` word alone, or from itself `on` until its
            clause ends.
    """

    kind: Kind
    names: frozenset[str]
    parts: frozenset[Part] = ALL_PARTS
    where: Where = "at"

    def strengths(self, reading: Reading, hindsight: bool) -> Iterator[tuple[int, float]]:
        """Index and strength, above 0 to 1, of the units that lie in what is named."""
        if self.kind == "word":
            for index in self._word_units(reading):
                yield index, 1.0
            return
        for index, place in enumerate(reading.places):
            if hindsight and self.kind == "clause":
                settled = reading.settled[place.clause]
                if settled is not None and self.names.isdisjoint(settled):
                    continue
            if place.part in self.parts and (strength := self._strength(place)):
                yield index, min(1.0, strength)

    def _strength(self, place: Place) -> float:
        names = self.names
        if self.kind == "clause":
            return sum(share for name, share in place.evidence.items() if name in names)
        if self.kind == "class":
            return float(place.entry is not None and not names.isdisjoint(place.entry.kinds))
        entry = place.verb if self.kind == "act" else place.object
        if entry is None:
            return 0.0
        belongs = entry.act_of if self.kind == "act" else entry.object_of
        return float(any(belongs(name) for name in names))

    def _word_units(self, reading: Reading) -> set[int]:
        clauses = [place.clause for place in reading.places]
        texts = [unit.text for unit in reading.units]
        by_first = _by_first(self.names)
        found: set[int] = set()
        for place, text in enumerate(texts):
            for word in by_first.get(text, ()):
                after = place + len(word)
                if tuple(texts[place:after]) != word:
                    continue
                if self.where == "next":
                    found.update(range(after, min(after + 1, len(texts))))
                    continue
                if self.where == "on":
                    while after < len(texts) and clauses[after] == clauses[place]:
                        after += 1
                found.update(range(place, after))
        return found


@dataclass(frozen=True)
class Named:
    """All that an explanation names; nothing named, nothing predicted."""

    terms: tuple[Term, ...] = ()

    def strengths(self, reading: Reading, *, hindsight: bool = False) -> list[float]:
        """How far each unit of a text lies in what is named, from 0 to 1.

        Args:
            reading: of the text.
            hindsight: half a combination counts for nothing where the text shows further on that
                its other half is missing; else each unit is judged by what stands before it.
        """
        values = [0.0] * len(reading.units)
        for term in self.terms:
            for index, strength in term.strengths(reading, hindsight):
                values[index] = max(values[index], strength)
        return values


@lru_cache(maxsize=5_000)
def _by_first(words: frozenset[str]) -> dict[str, list[tuple[str, ...]]]:
    """Words and phrases as units, by the first of these."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for word in sorted(words):
        split = tuple(unit.text for unit in units(word))
        if split:
            found.setdefault(split[0], []).append(split)
    return found


@lru_cache(maxsize=5_000)
def named(explanation: str) -> Named:
    """What an explanation names."""
    quoted: list[str] = []

    def put_away(match: re.Match[str]) -> str:
        quoted.append(next(filter(None, match.groups())).strip().lower())
        return f"\x00{len(quoted) - 1}\x00"

    # Quotes are put away first: what they hold is no name and ends no sentence.
    text = _QUOTED.sub(put_away, explanation.replace("\x00", " "))
    terms: list[Term] = []
    alone: list[Term] = []
    for piece in _PIECE.split(text):
        said = _SILENCE.split(piece)[0]
        words = frozenset(quoted[int(number)] for number in _PLACE.findall(said)) - {""}
        found = _found_terms(said)
        terms += found
        # Beside a concept quoted words are its examples.
        if words and not found:
            where: Where = _first(_WHERE, said, "at")
            word = Term("word", words, where=where)
            (terms if _ALSO.search(said) else alone).append(word)
    concepts = any(term.kind != "word" for term in terms)
    return Named(tuple(dict.fromkeys(terms if concepts else [*terms, *alone])))


def _first(table: Iterable[tuple[str, T]], text: str, default: T) -> T:
    return next((value for pattern, value in table if re.search(pattern, text)), default)


def _found_terms(text: str) -> list[Term]:
    """Terms of a piece of an explanation, but for its quoted words."""
    names: set[str] = set()
    for match in _vocabulary().finditer(text):
        name = re.sub(r"[ -]", "_", match[0].lower())
        children = [path for path in phrases().children if name in (path, *path.split("/"))]
        names |= set(children or [name])
    classes = {kind for kind in KINDS if f"words for {kind}" in text or f"表示 {kind} " in text}
    terms = [Term("class", frozenset(classes))] if classes else []
    if names:
        kind: Kind = _first(_KINDS, text, "clause")
        terms.append(Term(kind, frozenset(names), _first(_PARTS, text, ALL_PARTS)))
    return terms


@cache
def _vocabulary() -> re.Pattern[str]:
    """Every name, the longest first, so that a child's path is not read as its parent."""
    known = phrases()
    names = {*known.children, *known.topics}
    for path in known.children:
        names |= set(path.split("/"))
    spelled = sorted(names - _COMMON, key=lambda name: (-len(name), name))
    patterns = "|".join(name.replace("_", "[ _-]") for name in spelled)
    return re.compile(rf"(?<![A-Za-z_/])(?:{patterns})(?![A-Za-z_/])", re.IGNORECASE)
