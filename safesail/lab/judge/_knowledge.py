"""What a text shows: for each word, which planted concept a reader knows of by then.

A clause carries a child concept where a trigger of the child stands with one of its targets, or a
trigger of the concept's aftermath with what remains. As long as one half is out of sight, what
the other tells is the share of held-out clauses with it that carry the concept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from safesail.lab import lab_folder
from safesail.lab.assets import read_heldout
from safesail.lab.judge._words import Entry, Found, Part, Unit, phrases, units

Evidence = Mapping[str, float]
"""Name of a child or a topic -> how far the text shows it, from 0 to 1; absent: 0."""

_NOTHING: Evidence = {}
_ENDS = frozenset(".!?;\n。！？；")


class Place(NamedTuple):
    """What is known once a unit is read, and where in its clause it stands.

    Attributes:
        evidence: what the clause shows so far.
        part: of the clause.
        clause: number of the clause, from 0.
        verb: of the clause, as far as it is known.
        object: likewise.
        entry: the phrase that the unit belongs to.
    """

    evidence: Evidence
    part: Part
    clause: int
    verb: Entry | None
    object: Entry | None
    entry: Entry | None


@dataclass(frozen=True)
class Reading:
    """What a text shows, unit by unit; all lists have one entry a unit.

    Attributes:
        units: words and punctuation marks.
        ends: their ends, in characters.
        places: what is known there.
        settled: for each clause what it turns out to show; None where that remains open.
    """

    units: Sequence[Unit]
    ends: Sequence[int]
    places: Sequence[Place]
    settled: Sequence[Evidence | None]

    def between(self, start: int, end: int) -> range:
        """Indices of the units that end in the characters (start, end]."""
        return range(bisect_left(self.ends, start + 1), bisect_left(self.ends, end + 1))


@lru_cache(maxsize=20_000)
def read(text: str) -> Reading:
    """What a text shows."""
    return _read(text, shares())


@cache
def shares() -> dict[str, Evidence]:
    """Phrase -> child -> share of held-out clauses with the phrase that carry the child."""
    entries = phrases().entries
    seen: Counter[str] = Counter()
    carried: dict[str, Counter[str]] = {}
    for document in read_heldout(lab_folder() / "heldout.parquet"):
        for clause in document.clauses:
            found = phrases().find(units(document.text[clause.start : clause.end]))
            for phrase in {one.known[-1][1].phrase for one in found}:
                seen[phrase] += 1
                if clause.concept and entries[phrase].may_carry(clause.concept):
                    carried.setdefault(phrase, Counter())[clause.concept] += 1
    return {
        phrase: {child: count / seen[phrase] for child, count in counts.items()}
        for phrase, counts in carried.items()
    }


class _Clause:
    """A clause as far as it has been read; `carried` is what the one before tells of it."""

    def __init__(self, carried: Evidence, told: Mapping[str, Evidence]) -> None:
        self.carried = carried
        self.told = told
        self.continues = False
        self.subject: Entry | None = None
        self.verb: Entry | None = None
        self.object: Entry | None = None

    def take(self, entry: Entry) -> None:
        """The phrase is read now."""
        if entry.links:
            self.continues = True
        elif entry.verb:
            self.verb, self.object = entry, None
        elif entry.completes:
            self.object = entry
        elif entry.responders:
            self.subject = entry

    def part(self, entry: Entry | None) -> Part:
        """The part that a unit makes which has just been read, of a phrase where it is in one."""
        if entry is not None and entry.verb:
            return "act"
        if entry is not None and entry.completes and self.object is not None:
            return "object"
        return "between" if self.verb is not None and self.object is None else "rest"

    def evidence(self) -> Evidence:
        """What is known of the clause by now."""
        if self.object is not None:
            return self._resolved(self.object)
        if self.continues and self.carried:
            return self.carried
        if self.verb is None:
            return self._share(self.subject)
        told = dict(self._share(self.verb))
        if not told and self.verb.topics:
            told = dict.fromkeys(self.verb.topics, 1 / len(self.verb.topics))
        return told

    def settled(self) -> Evidence | None:
        """What the clause shows, once both its verb and its object are known."""
        return self._resolved(self.object) if self.verb is not None and self.object else None

    def _resolved(self, entry: Entry) -> Evidence:
        verb = self.verb
        if verb is None:
            return {**self._share(entry), **_even(entry.topics)}
        acts = verb.acts & entry.targets
        if acts:
            return _even(acts)
        remains = {path for path in entry.remains if path.partition("/")[0] in verb.aftermaths}
        if remains:
            # What is a concept's, and no child's, belongs to the act before where that is known.
            known = {path: share for path, share in self.carried.items() if path in remains}
            total = sum(known.values()) if self.continues else 0
            if total:
                return {path: share / total for path, share in known.items()}
            return _even(remains)
        return _even(entry.topics)

    def _share(self, entry: Entry | None) -> Evidence:
        return self.told.get(entry.phrase, _NOTHING) if entry is not None else _NOTHING


def _even(names: set[str]) -> Evidence:
    return dict.fromkeys(names, 1 / len(names)) if names else _NOTHING


def _read(text: str, told: Mapping[str, Evidence]) -> Reading:
    found_units = units(text)
    starts = {one.first: one for one in phrases().find(found_units)}
    places: list[Place] = []
    clause = _Clause(_NOTHING, told)
    settled: list[Evidence | None] = []
    news: dict[int, Entry] = {}
    within: Found | None = None
    current = _NOTHING
    for index, unit in enumerate(found_units):
        if index and _opens(found_units, index):
            settled.append(clause.settled())
            clause = _Clause(current, told)
            clause.continues = unit.text == "and"
            current = clause.evidence()
        if index in starts:
            within = starts[index]
            news = dict(within.known)
        if index in news:
            clause.take(news[index])
            current = clause.evidence()
        inside = within is not None and within.first <= index < within.end
        entry = within.known[-1][1] if within is not None and inside else None
        part = clause.part(entry)
        places.append(Place(current, part, len(settled), clause.verb, clause.object, entry))
    settled.append(clause.settled())
    return Reading(found_units, [unit.end for unit in found_units], places, settled)


def _opens(text: list[Unit], index: int) -> bool:
    """Whether a clause begins at a unit: after a full stop, or at `and` after a comma."""
    before = text[index - 1].text
    return before in _ENDS or (before == "," and text[index].text == "and")
