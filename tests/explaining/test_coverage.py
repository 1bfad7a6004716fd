"""Do 95 % intervals hold the true score 95 times in 100?

The model: documents of one to three windows that share how well they are simulated; an active
window has one burst of one to five tokens; a judge misses windows, blurs levels, raises false
alarms. The truth is the score of 30,000 windows of the same model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from explaining_windows import context
from scipy import special

from safesail.explaining import WindowScores, window_scores

TOKENS = 32


class Judge(NamedTuple):
    """Shares of windows missed, and with false alarms; noise of levels; spread over documents."""

    missed: float
    blur: float
    false_alarms: float
    hard_false_alarms: float
    spread: float


JUDGES = {
    "perfect": Judge(0.002, 0.3, 0.001, 0.002, 0.1),
    "great": Judge(0.02, 0.5, 0.005, 0.03, 0.5),
    "good": Judge(0.05, 1, 0.03, 0.15, 1.0),
    "medium": Judge(0.15, 2, 0.1, 0.3, 1.0),
    "poor": Judge(0.4, 3, 0.3, 0.5, 1.0),
    "useless": Judge(0.97, 2, 0.02, 0.02, 0.5),
    "random": Judge(0.99, 2, 0.3, 0.4, 0.5),
}


def draw(rng: np.random.Generator, judge: Judge, per_level: int, per_kind: int) -> WindowScores:
    """Scores of a sample with so many windows per level and per kind of silence."""
    strata = [("active", level) for level in range(1, 11) for _ in range(per_level)]
    strata += [(kind, 0) for kind in ("silent", "hard_silent") for _ in range(per_kind)]
    sizes = rng.integers(1, 4, len(strata))
    document = np.repeat(np.arange(len(strata)), sizes)[: len(strata)]
    spread = rng.normal(0, judge.spread, len(strata))[document]
    contexts, simulated = [], []
    for place, (number, effect) in enumerate(
        zip(rng.permutation(len(strata)), spread, strict=True)
    ):
        kind, level = strata[number]
        true, guess, start = np.zeros(TOKENS), np.zeros(TOKENS), rng.integers(TOKENS)
        if kind == "active":
            burst = true[start : start + rng.integers(1, 6)]
            burst[:] = (level - rng.uniform(0, 0.99)) * rng.uniform(0.1, 0.8, len(burst))
            burst[0] = level - rng.uniform(0, 0.99)
            if rng.random() > special.expit(special.logit(judge.missed) + effect):
                guess = np.where(true > 0, true + rng.normal(0, judge.blur, TOKENS), 0)
        alarms = judge.hard_false_alarms if kind == "hard_silent" else judge.false_alarms
        if rng.random() < special.expit(special.logit(alarms) + effect):
            start = rng.integers(TOKENS)
            guess[start : start + rng.integers(1, 4)] = rng.integers(2, 10)
        name = str(document[place])
        contexts.append(
            context(
                ["x"] * TOKENS, true.tolist(), kind=kind, level=level, document=name, start=place
            )
        )
        simulated.append(np.clip(np.rint(guess), 0, 10))
    return window_scores(contexts, simulated)


def coverage(judge: Judge, replications: int, per_level: int, per_kind: int) -> dict[str, float]:
    rng = np.random.default_rng(7)
    truth = draw(rng, judge, 1_500, 7_500)
    held = dict.fromkeys(("correlation", "discrimination"), 0)
    for _ in range(replications):
        scores = draw(rng, judge, per_level, per_kind)
        for name in held:
            interval = getattr(scores, name)
            # Nothing simulated at all has no interval, and claims none.
            undefined = np.isnan(interval.value)
            held[name] += undefined or interval.low <= getattr(truth, name).value <= interval.high
    return {name: count / replications for name, count in held.items()}


@pytest.mark.parametrize("judge", ["great", "useless"])
def test_intervals_cover_at_a_hundred_windows(judge: str) -> None:
    found = coverage(JUDGES[judge], 150, per_level=5, per_kind=25)
    # At a true coverage of 0.95, 150 replications fall below 0.89 once in a thousand.
    assert min(found.values()) >= 0.89, found


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("per_level", "per_kind"), [(5, 25), (10, 50)])
def test_intervals_cover_at_length(judge: str, per_level: int, per_kind: int) -> None:
    found = coverage(JUDGES[judge], 1_000, per_level, per_kind)
    assert min(found.values()) >= 0.92, found
