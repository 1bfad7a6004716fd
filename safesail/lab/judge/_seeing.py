"""From what an explanation names to grades: what is seen, with which errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, pairwise
from typing import Literal

import numpy as np

from safesail.lab.judge._knowledge import Reading, read
from safesail.lab.judge._names import Named, named
from safesail.lab.judge._noise import FALSE_GRADES, Floats, Quality
from safesail.lab.judge._prompts import Entry

GradedTask = Literal["segments", "items", "detection", "fuzzing"]

SURE, LIKELY, DOUBTFUL = 0.8, 0.5, 0.15
"""Smallest strengths of the grades 3, 2 and 1."""
GRADES = 4
_FALSE_LEVELS = (3, 5, 8)
_MARK = re.compile("[⟪⟫]")


@dataclass(frozen=True)
class Sight:
    """A piece to be graded.

    Attributes:
        grade: that its strength deserves, 0 to 3.
        size: its tokens, by the number of its words and punctuation marks, at least 1.
        runs: how many separate stretches of it lie in what is named, each a chance to see it.
        largest: grade of the task: 3, or 1 where active and silent are told apart only.
    """

    grade: int
    size: int
    runs: int
    largest: int

    def distribution(self, misses: float, false_alarms: float, bias: float) -> list[float]:
        """Probability of each grade from 0 to 3, at given error rates."""
        chances = [0.0] * GRADES
        if self.grade:
            missed = misses**self.runs
            chances[0] += missed
            chances[self.grade] += 1 - missed
        else:
            alarmed = 1 - (1 - false_alarms) ** self.size
            chances[0] = 1 - alarmed
            if self.largest == 1:
                chances[1] = alarmed
            else:
                chances[1:] = [alarmed * share for share in FALSE_GRADES]
        return self._shifted(chances, bias) if bias else chances

    def _shifted(self, chances: list[float], bias: float) -> list[float]:
        whole, fraction = divmod(bias, 1)
        shifted = [0.0] * GRADES
        for grade, chance in enumerate(chances):
            for step, share in ((int(whole), 1 - fraction), (int(whole) + 1, fraction)):
                shifted[min(max(grade + step, 0), self.largest)] += chance * share
        return shifted


def sights(explanation: str, entry: Entry, task: GradedTask) -> list[Sight]:
    """What there is to grade in an entry: a sight for each of its parts."""
    known = named(explanation)
    # Who reads a text sees the harmless object behind the act.
    if isinstance(entry, list):
        ends = list(accumulate(map(len, entry), initial=0))
        reading = read("".join(entry))
        strengths = known.strengths(reading, hindsight=True)
        return [
            _graded(strengths, reading.between(start, end), largest=3)
            for start, end in pairwise(ends)
        ]
    text, spans = _without_marks(entry)
    reading = read(text)
    strengths = known.strengths(reading, hindsight=True)
    if task == "fuzzing":
        return [_right_words(strengths, reading, spans)]
    if task == "detection" or not spans:
        spans = [(0, len(text))]
    (start, end), largest = spans[0], 1 if task == "detection" else 3
    return [_graded(strengths, reading.between(start, end), largest=largest)]


def grade(
    explanation: str,
    entries: Sequence[Entry],
    task: GradedTask,
    quality: Quality,
    random: np.random.Generator,
) -> list[list[int]]:
    """A judge's grades for the entries of one prompt."""
    misses, false_alarms = quality.rates(float(random.standard_normal()))
    graded = []
    for entry in entries:
        digits = []
        for sight in sights(explanation, entry, task):
            chances = sight.distribution(misses, false_alarms, quality.bias)
            draw = random.random()
            sums = list(accumulate(chances))
            digits.append(next((n for n, total in enumerate(sums) if draw < total), sight.largest))
        graded.append(digits)
    return graded


def expected_grades(
    explanation: str,
    pieces: Sequence[Entry],
    quality: Quality,
    *,
    task: GradedTask = "items",
) -> Floats:
    """Exact distribution of a judge's grades, over everything that chance decides.

    The effect of a prompt is integrated out by Gauss-Hermite quadrature, so a row holds for a
    piece in a random prompt; pieces of one prompt are not independent of each other.

    Args:
        explanation: that the pieces are graded by.
        pieces: entries of the task: texts, or lists of segments.
        quality: of the judge.
        task: that is asked.

    Returns:
        Probabilities of shape (graded parts, 4): a row for each text, or for each segment of each
        list, in order.
    """
    return np.array(
        [
            _expected(sight, quality)
            for piece in pieces
            for sight in sights(explanation, piece, task)
        ]
    ).reshape(-1, GRADES)


@lru_cache(maxsize=10_000)
def _expected(sight: Sight, quality: Quality) -> tuple[float, ...]:
    """A sight's distribution over grades, in a random prompt."""
    chances = np.zeros(GRADES)
    for weight, misses, false_alarms in quality.quadrature():
        chances += weight * np.array(sight.distribution(misses, false_alarms, quality.bias))
    return tuple(chances)


def simulate(
    explanation: str,
    windows: Sequence[Sequence[str]],
    quality: Quality,
    random: np.random.Generator,
) -> list[list[int]]:
    """A judge's levels, 0 to 10, for the tokens of the windows of one prompt."""
    misses, false_alarms = quality.rates(float(random.standard_normal()))
    known = named(explanation)
    simulated = []
    for tokens in windows:
        levels: list[int] = []
        for present, run in groupby(_token_strengths(known, tokens), key=lambda s: s >= DOUBTFUL):
            strengths = list(run)
            if present:
                seen = random.random() >= misses
                levels += [round(3 + 6 * strength) if seen else 0 for strength in strengths]
                continue
            for draw in random.random(len(strengths)):
                # The part of the draw below the rate is uniform again and chooses the level.
                sums = accumulate(share * false_alarms for share in FALSE_GRADES)
                levels.append(
                    next((n for n, s in zip(_FALSE_LEVELS, sums, strict=True) if draw < s), 0)
                )
        if quality.bias:
            # A grade is three levels.
            shifts = np.floor(3 * quality.bias + random.random(len(levels)))
            levels = np.clip(levels + shifts, 0, 10).astype(int).tolist()
        simulated.append(levels)
    return simulated


def _token_strengths(known: Named, tokens: Sequence[str]) -> list[float]:
    """Strength at each token, when the text up to and including it has been read."""
    reading = read("".join(tokens))
    strengths = known.strengths(reading)
    found = []
    unit = 0  # the first that the tokens so far do not hold whole
    for end in accumulate(map(len, tokens)):
        while unit < len(reading.ends) and reading.ends[unit] <= end:
            unit += 1
        before = strengths[unit - 1] if unit else 0.0
        if unit < len(reading.units) and reading.units[unit].start < end:
            # Within a word, which may be what ends the part that is named.
            before = min(before, strengths[unit])
        found.append(before)
    return found


def _without_marks(entry: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its marks, and the characters [start, end) that stood in them."""
    text = ""
    spans = []
    for index, piece in enumerate(_MARK.split(entry)):
        if index % 2:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


def _graded(strengths: Sequence[float], indices: range, *, largest: int) -> Sight:
    values = [strengths[index] for index in indices]
    best = max(values, default=0.0)
    runs = sum(present for present, _ in groupby(values, key=lambda value: value >= DOUBTFUL))
    deserved = sum(best >= bound for bound in (SURE, LIKELY, DOUBTFUL))
    if largest == 1:
        deserved = int(best >= LIKELY)
        runs = sum(present for present, _ in groupby(values, key=lambda value: value >= LIKELY))
    return Sight(deserved, max(1, len(values)), max(1, runs), largest)


def _right_words(
    strengths: Sequence[float], reading: Reading, spans: Sequence[tuple[int, int]]
) -> Sight:
    """Whether the words in brackets lie in what is named, on the average."""
    values = [
        max(
            (
                strength
                for strength, unit in zip(strengths, reading.units, strict=True)
                if unit.start < end and unit.end > start
            ),
            default=0.0,
        )
        for start, end in spans
    ]
    right = bool(values) and sum(values) / len(values) >= LIKELY
    return Sight(int(right), max(1, len(values)), 1, 1)
