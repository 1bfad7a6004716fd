"""Scores of graded parts against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from explaining_windows import context
from scipy import stats
from sklearn.metrics import roc_auc_score

from safesail.explaining._design_effect import INDEPENDENT, DesignEffect
from safesail.explaining._graded import CHANCE, Graded, GradedScores, Part, graded_scores
from safesail.explaining._mixture import MISPLACED, stratum_of


def graded(seed: int = 0, *, missed: float = 0.2, alarms: float = 0.1) -> list[Graded]:
    """80 windows in two prompts: 40 active, four of each level, 20 silent, 20 hard silent."""
    rng = np.random.default_rng(seed)
    kinds = [("active", level) for level in range(1, 11)] * 4
    kinds += [("silent", 0), ("hard_silent", 0)] * 20
    found = []
    for number, (kind, level) in enumerate(kinds):
        grade = rng.integers(1, 4) if rng.random() < alarms else 0
        if kind == "active":
            grade = 0 if rng.random() < missed else min(3, 1 + level // 4)
        one = context(["x"], [level], kind=kind, level=level, document=str(number))
        found.append(Graded(Part.whole(one, float(level)), [grade], number % 2))
    return found


def arrays(parts: list[Graded]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([one.part.truth[0] for one in parts]),
        np.array([one.grades[0] for one in parts]),
    )


def width(scores: GradedScores) -> float:
    return scores.discrimination.high - scores.discrimination.low


def test_equal_weights_give_the_plain_figures() -> None:
    parts = graded()
    truth, grades = arrays(parts)
    scores = graded_scores(parts, largest=3)
    assert scores.discrimination.value == pytest.approx(roc_auc_score(truth > 0, grades))
    assert scores.correlation.value == pytest.approx(stats.pearsonr(truth, grades).statistic)
    assert scores.observations == 80
    assert scores.active_share == 0.5
    assert scores.mixture == "active 0.50 (levels 1-10), silent 0.25, hard_silent 0.25"


def test_unequal_shares_are_weighted_back() -> None:
    parts = [one for one in graded() if one.part.context.level not in (2, 9)]
    parts = parts[:-15]
    truth, grades = arrays(parts)
    kinds = [one.part.context.kind for one in parts]
    count = {kind: kinds.count(kind) for kind in set(kinds)}
    weights = np.array([{"active": 0.5}.get(kind, 0.25) / count[kind] for kind in kinds])
    scores = graded_scores(parts, largest=3)
    expected = roc_auc_score(truth > 0, grades, sample_weight=weights)
    assert scores.discrimination.value == pytest.approx(expected)
    assert scores.active_share == pytest.approx(32 / 57)


def test_segments_stand_for_their_tokens_and_windows_for_their_largest_grade() -> None:
    windows = [
        ("active", [0, 8, 0], [0, 3, 1], [3, 4, 5]),
        ("active", [6, 0, 0], [0, 0, 1], [4, 4, 4]),
        ("silent", [0, 0], [2, 0], [6, 6]),
        ("silent", [0, 0, 0], [0, 0, 0], [3, 3, 6]),
    ]
    parts = []
    for number, (kind, truth, grades, repeats) in enumerate(windows):
        one = context(["x"] * 12, [0.0] * 12, kind=kind, level=5, document=str(number))
        parts.append(Graded(Part(one, truth, repeats, stratum_of(one)), grades, 0))
    scores = graded_scores(parts, largest=3)
    tokens = [
        np.concatenate([np.repeat(window[k], window[3]) for window in windows]) for k in (1, 2)
    ]
    assert scores.correlation.value == pytest.approx(stats.pearsonr(*tokens).statistic)
    # Largest grades: 3 and 1 against 2 and 0.
    assert scores.discrimination.value == pytest.approx(0.75)


def test_misplaced_marks_count_among_the_silent() -> None:
    parts = graded()
    wrong = [
        Graded(Part.whole(one.part.context, 0.0, (MISPLACED, 0)), [0], 0) for one in parts[:20]
    ]
    scores = graded_scores(wrong + parts[20:], largest=3)
    assert scores.active_share == 0.25
    assert scores.mixture == (
        "active 0.50 (levels 1-10), silent 0.17, hard_silent 0.17, misplaced 0.17"
    )


def test_the_design_effect_and_the_critical_value_widen_the_interval() -> None:
    parts = graded()
    plain = graded_scores(parts, largest=3)
    assert plain.design_effect == INDEPENDENT.of("discrimination", [40, 40]) == 1
    shared = graded_scores(parts, largest=3, design_effect=DesignEffect(0.02, 0.01, 20))
    assert shared.design_effect == pytest.approx(1.39)
    assert width(shared) / width(plain) == pytest.approx(1.39**0.5, rel=0.03)
    looked = graded_scores(parts, largest=3, critical_value=2.4)
    assert width(looked) / width(plain) == pytest.approx(2.4 / 1.96, rel=0.03)


def test_the_interval_of_two_grades_is_that_of_agresti_and_caffo() -> None:
    """One level, one kind of silence: the AUROC is half the difference of two proportions."""
    parts = []
    for number in range(80):
        active = number < 40
        grade = int(number >= 6) if active else int(number < 42)  # 6 missed, 2 false alarms
        kind = "active" if active else "silent"
        one = context(["x"], [1.0 if active else 0.0], kind=kind, level=1, document=str(number))
        parts.append(Graded(Part.whole(one, float(active)), [grade], 0))
    found = graded_scores(parts, largest=1).discrimination
    hits, alarms = 34.5 / 41, 2.5 / 41  # half a hit and half a mistake more on either side
    centre = (1 + hits - alarms) / 2
    error = (hits * (1 - hits) / 41 + alarms * (1 - alarms) / 41) ** 0.5 / 2
    assert found.value == pytest.approx((1 + 34 / 40 - 2 / 40) / 2)
    assert found.low == pytest.approx(centre - 1.96 * error, abs=0.003)
    assert found.high == pytest.approx(centre + 1.96 * error, abs=0.003)


def test_silence_throughout_is_not_certain_of_chance() -> None:
    """A judge that finds nothing may have missed what is rare: the interval says so."""
    parts = [Graded(one.part, [0], one.prompt) for one in graded()]
    scores = graded_scores(parts, largest=3)
    assert scores.discrimination.value == pytest.approx(CHANCE)
    assert 0.40 < scores.discrimination.low < 0.49
    assert 0.51 < scores.discrimination.high < 0.60
    assert np.isnan(scores.correlation.value)
