"""Explaining: which names fit the marked windows of a prompt best."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.lab.judge._knowledge import Reading, read
from safesail.lab.judge._names import ALL_PARTS, Kind, Named, Term, Where
from safesail.lab.judge._noise import Floats
from safesail.lab.judge._prompts import Asked
from safesail.lab.judge._sentences import sentence, spelled
from safesail.lab.judge._words import KINDS, Entry, Part, phrases

_MARK = re.compile(r"⟪(\d+)⟫")
_STRONG = 2
"""Level from which a token is marked with full weight."""
_WORDS, _TRIED_WORDS = 12, 24
_LEADING = 12
"""Of so many of the best terms, all pairs are tried."""
_GAIN, _GAIN_OF_WORD = 0.03, 0.003
"""What a second term, or one more word, must add to the fit to be worth naming."""

_CLAUSE_PARTS: tuple[frozenset[Part], ...] = (
    ALL_PARTS,
    frozenset({"act", "between", "object"}),
    frozenset({"object", "rest"}),
    frozenset({"object"}),
    frozenset({"rest"}),
)
_ACT_PARTS: tuple[frozenset[Part], ...] = (
    frozenset({"act", "between"}),
    frozenset({"between"}),
    frozenset({"act"}),
)
_OBJECT_PARTS: tuple[frozenset[Part], ...] = (frozenset({"object"}), frozenset({"object", "rest"}))


@dataclass(frozen=True)
class _Shown:
    """The prompt's windows, one after the other, unit by unit.

    Attributes:
        readings: of the windows.
        texts: of the units.
        marks: how strongly each unit is marked, 0 to 1.
        following: index of the unit after it in its window; the number of units where there is
            none.
        ends: index past the last unit of its clause.
    """

    readings: list[Reading]
    texts: list[str]
    marks: Floats
    following: NDArray[np.int64]
    ends: NDArray[np.int64]

    def fit(self, strengths: Floats) -> Any:
        """F-measure of graded strengths: 2 sum min(s, m) / (sum s + sum m), over the first axis."""
        marks = self.marks.reshape(-1, *[1] * (strengths.ndim - 1))
        overlap = np.minimum(strengths, marks).sum(axis=0)
        return 2 * overlap / np.maximum(strengths.sum(axis=0) + self.marks.sum(), 1e-9)

    def strengths(self, names: Named) -> Floats:
        """What names predict for all units."""
        return np.array([s for reading in self.readings for s in names.strengths(reading)])


def explain(asked: Asked) -> dict[str, Any]:
    """The answer to an explain prompt, from its windows alone."""
    shown = _shown(asked)
    best = Named(_best_terms(shown) if shown.marks.any() else ())
    children = {
        name
        for term in best.terms
        if term.kind not in ("word", "class")
        for name in term.names
        if "/" in name
    }
    return {
        "explanation": sentence(best, shown.readings, asked.language),
        "concepts": list(
            dict.fromkeys(
                [*_listed(children, asked.concepts), *_of_words(best, shown, asked.concepts)]
            )
        ),
        "confidence": round(min(1.0, float(shown.fit(shown.strengths(best)))), 2),
    }


def _shown(asked: Asked) -> _Shown:
    readings: list[Reading] = []
    marks: list[float] = []
    following: list[int] = []
    ends: list[int] = []
    for window in (*asked.active, *asked.silent):
        text = ""
        levels: list[tuple[int, int]] = []
        for index, piece in enumerate(_MARK.split(window)):
            if index % 2:
                levels.append((len(text), int(piece)))
            else:
                text += piece
        reading = read(text)
        readings.append(reading)
        first, count = len(marks), len(reading.units)
        following += [*range(first + 1, first + count), -1] if count else []
        last: dict[int, int] = {}
        for index, place in enumerate(reading.places, start=first + 1):
            last[place.clause] = index
        ends += [last[place.clause] for place in reading.places]
        for unit in reading.units:
            level = max((n for end, n in levels if unit.start < end <= unit.end), default=0)
            marks.append(min(1.0, level / _STRONG))
    after = np.array(following, dtype=np.int64)
    after[after < 0] = len(marks)
    texts = [unit.text for reading in readings for unit in reading.units]
    return _Shown(readings, texts, np.array(marks), after, np.array(ends, dtype=np.int64))


def _best_terms(shown: _Shown) -> tuple[Term, ...]:
    """One name or two and words beside them, or words alone, whichever fits best."""
    terms, strengths = _candidates(shown)
    fits = shown.fit(strengths)
    leading = np.argsort(-fits, kind="stable")[:_LEADING]
    best: tuple[Term, ...] = (terms[leading[0]],)
    fit, given = float(fits[leading[0]]), strengths[:, leading[0]]
    for first, second in combinations(leading, 2):
        both = np.maximum(strengths[:, first], strengths[:, second])
        if (reached := float(shown.fit(both))) > max(fit, float(fits[leading[0]]) + _GAIN):
            best, fit, given = _joined(terms[first], terms[second]), reached, both
    alone, fit_alone = _best_words(shown, np.zeros_like(shown.marks), ("at", "next", "on"))
    if alone and fit_alone > fit + _GAIN:
        return (alone,)
    beside, fit_beside = _best_words(shown, given, ("at", "next"))
    return (*best, beside) if beside and fit_beside > fit + _GAIN else best


def _joined(first: Term, second: Term) -> tuple[Term, ...]:
    if (first.kind, first.parts) == (second.kind, second.parts):
        return (replace(first, names=first.names | second.names),)
    return first, second


def _candidates(shown: _Shown) -> tuple[list[Term], Floats]:
    """Every single term, and its strengths of shape (units, terms)."""
    places = [place for reading in shown.readings for place in reading.places]
    children = phrases().children
    whole = [
        frozenset(path for path in children if path.startswith(f"{concept}/"))
        for concept in dict.fromkeys(path.partition("/")[0] for path in children)
    ]
    concepts = [*(frozenset({path}) for path in children), *whole]
    topics = [frozenset({topic}) for topic in phrases().topics]
    classes = [frozenset({kind}) for kind in KINDS]
    sets: list[tuple[Kind, list[frozenset[str]], Sequence[frozenset[Part]]]] = [
        ("clause", [*concepts, *topics], _CLAUSE_PARTS),
        ("act", concepts, _ACT_PARTS),
        ("object", concepts, _OBJECT_PARTS),
        ("class", classes, (ALL_PARTS,)),
    ]
    terms: list[Term] = []
    columns: list[Floats] = []
    for kind, names, parts in sets:
        strengths = np.zeros((len(places), len(names)))
        number = {name: column for column, name in enumerate(names)}
        single = {next(iter(name)): column for name, column in number.items() if len(name) == 1}
        for row, reading_place in zip(strengths, places, strict=True):
            if kind == "clause":
                found: Iterable[tuple[str, float]] = reading_place.evidence.items()
            elif kind == "class":
                entry = reading_place.entry
                found = [(name, 1.0) for name in entry.kinds] if entry is not None else []
            else:
                entry = reading_place.verb if kind == "act" else reading_place.object
                found = [(name, 1.0) for name in _belongings(entry, kind)] if entry else []
            for name, share in found:
                row[single[name]] = share
        for one, column in number.items():
            if len(one) > 1:
                members = [single[name] for name in sorted(one)]
                joined = strengths[:, members]
                total = joined.sum(axis=1) if kind == "clause" else joined.max(axis=1)
                strengths[:, column] = np.minimum(total, 1)
        for part in parts:
            inside = np.array([place.part in part for place in places])
            columns.append(strengths * inside[:, None])
            terms += [Term(kind, one, part) for one in names]
    return terms, np.concatenate(columns, axis=1)


def _belongings(entry: Any, kind: Kind) -> list[str]:
    belongs = entry.act_of if kind == "act" else entry.object_of
    return [path for path in phrases().children if belongs(path)]


def _best_words(shown: _Shown, given: Floats, wheres: Sequence[Where]) -> tuple[Term | None, float]:
    """Words that fit best beside the given strengths, taken one after the other."""
    occurrences: defaultdict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(shown.texts):
        occurrences[text].append(index)
    open_marks = np.append(np.where(given > 0, 0, shown.marks), 0.0)
    start = float(shown.fit(given))
    best: tuple[Term | None, float] = None, start
    for where in wheres:
        covered = {word: _covered(shown, found, where) for word, found in occurrences.items()}
        # One imagined silent sighting keeps single words from the top.
        scores = Counter(
            {
                word: float(open_marks[indices].sum() / (len(indices) + 1))
                for word, indices in covered.items()
            }
        )
        words: list[str] = []
        reached, strengths = start, given
        for word, _ in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:_TRIED_WORDS]:
            tried = strengths.copy()
            tried[covered[word]] = 1
            fit = float(shown.fit(tried))
            if fit > reached + _GAIN_OF_WORD and len(words) < _WORDS:
                words, reached, strengths = [*words, word], fit, tried
        if words and reached > best[1]:
            best = Term("word", frozenset(words), where=where), reached
    return best


def _covered(shown: _Shown, found: list[int], where: Where) -> NDArray[np.int64]:
    """Units that a word at these units stands for."""
    if where == "at":
        return np.array(found)
    if where == "next":
        after = shown.following[found]
        return after[after < len(shown.texts)]
    return np.unique(np.concatenate([np.arange(n, shown.ends[n]) for n in found]))


def _listed(children: set[str], concepts: Sequence[str]) -> list[str]:
    """Entries of the concept list for what is named: the name itself, or what holds it."""
    found: list[str] = []
    for name in spelled(children):
        parent = name.partition("/")[0]
        if name in concepts:
            found.append(name)
        elif parent in concepts:
            found.append(parent)
        elif name == parent:
            found += [one for one in concepts if one.startswith(f"{name}/")]
    return list(dict.fromkeys(found))


def _of_words(names: Named, shown: _Shown, concepts: Sequence[str]) -> list[str]:
    """Entries of the concept list to which most of the named words belong, best first.

    A word belongs to a concept where it stands in one of the phrases that the world plants for it.
    It weighs as much as the marks that it stands for, in all windows together.
    """
    words = [term for term in names.terms if term.kind == "word"]
    entries = [place.entry for reading in shown.readings for place in reading.places]
    weights: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for term in words:
        for index in (n for n, text in enumerate(shown.texts) if text in term.names):
            weight = float(shown.marks[_covered(shown, [index], term.where)].sum())
            total += weight
            entry = entries[index]
            for name in _planted(entry) if entry is not None else ():
                weights[name] += weight
    most = [name for name in concepts if weights[name] > total / 2]
    return sorted(most, key=lambda name: -weights[name])


def _planted(entry: Entry) -> set[str]:
    """Concepts and children of which an entry is a trigger, a target or an aftermath's object."""
    children = entry.acts | entry.targets | entry.remains
    return children | {path.partition("/")[0] for path in children} | entry.aftermaths
