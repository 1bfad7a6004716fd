"""Scores against scipy, scikit-learn and numpy; mixtures by hand."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from explaining_windows import context
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from safesail.explaining import window_scores
from safesail.explaining._mixture import mixture_weights
from safesail.tables import Context

Simulated = list[np.ndarray]


def sample(
    seed: int = 0,
    *,
    per_level: int = 2,
    silent: int = 10,
    hard_silent: int = 10,
    noise: float = 3.0,
    scale: float = 1.0,
) -> tuple[list[Context], Simulated]:
    """Windows of 8 tokens, one document each, with a noisy simulation of them."""
    rng = np.random.default_rng(seed)
    kinds = [("active", level) for level in range(1, 11) for _ in range(per_level)]
    kinds += [("silent", 0)] * silent + [("hard_silent", 0)] * hard_silent
    contexts, simulated = [], []
    for number, (kind, level) in enumerate(kinds):
        true = np.zeros(8)
        true[rng.integers(8)] = level
        contexts.append(
            context(["x"] * 8, true.tolist(), kind=kind, level=level, document=str(number))
        )
        simulated.append(scale * np.maximum(0, true + rng.normal(0, noise, 8)))
    return contexts, simulated


def flat(contexts: list[Context], simulated: Simulated) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(simulated), np.concatenate([one.activations for one in contexts])


def is_active(contexts: list[Context]) -> list[bool]:
    return [one.kind == "active" for one in contexts]


def test_equal_weights_give_the_plain_figures() -> None:
    contexts, simulated = sample()
    scores = window_scores(contexts, simulated)
    expected = stats.pearsonr(*flat(contexts, simulated)).statistic
    assert scores.correlation.value == pytest.approx(expected)
    peaks = [one.max() for one in simulated]
    assert scores.discrimination.value == pytest.approx(roc_auc_score(is_active(contexts), peaks))
    assert scores.observations == 40


def test_unequal_samples_are_weighted_back_to_the_mixture() -> None:
    contexts, simulated = sample(1, per_level=1, silent=6, hard_silent=20)
    scores = window_scores(contexts, simulated)
    # By hand: half over 10 active windows, a quarter over 6, a quarter over 20.
    share = {"active": 0.5 / 10, "silent": 0.25 / 6, "hard_silent": 0.25 / 20}
    weights = np.array([share[one.kind] for one in contexts])
    (xx, xy), (_, yy) = np.cov(*flat(contexts, simulated), aweights=np.repeat(weights, 8))
    assert scores.correlation.value == pytest.approx(xy / math.sqrt(xx * yy))
    expected = roc_auc_score(
        is_active(contexts), [one.max() for one in simulated], sample_weight=weights
    )
    assert scores.discrimination.value == pytest.approx(expected)


def test_tied_peaks_count_half() -> None:
    contexts, simulated = sample(2)
    rounded = [np.rint(one / 4) for one in simulated]
    peaks = [one.max() for one in rounded]
    assert len(set(peaks)) < 6
    assert window_scores(contexts, rounded).discrimination.value == pytest.approx(
        roc_auc_score(is_active(contexts), peaks)
    )


@pytest.mark.parametrize(
    ("per_level", "silent", "hard_silent", "dropped", "expected"),
    [
        (1, 5, 5, (), "active 0.50 (levels 1-10), silent 0.25, hard_silent 0.25"),
        (1, 5, 0, (), "active 0.50 (levels 1-10), silent 0.50"),
        (1, 0, 5, (4,), "active 0.50 (levels 1-3, 5-10), hard_silent 0.50"),
        (1, 5, 5, (2, 8, 10), "active 0.50 (levels 1, 3-7, 9), silent 0.25, hard_silent 0.25"),
    ],
)
def test_the_mixture_says_what_was_there(
    per_level: int, silent: int, hard_silent: int, dropped: tuple[int, ...], expected: str
) -> None:
    contexts, simulated = sample(per_level=per_level, silent=silent, hard_silent=hard_silent)
    kept = [number for number, one in enumerate(contexts) if one.level not in dropped]
    scores = window_scores([contexts[i] for i in kept], [simulated[i] for i in kept])
    assert scores.mixture == expected


kinds = st.sampled_from(
    [("active", level) for level in range(1, 11)] + [("silent", 0)] * 4 + [("hard_silent", 0)] * 4
)


@given(st.lists(st.tuples(kinds, st.floats(0.1, 50)), min_size=1, max_size=60))
def test_weights_sum_to_the_mixture(rows: list[tuple[tuple[str, int], float]]) -> None:
    contexts = [
        context(["x"], [level], kind=kind, level=level, document=str(number), weight=weight)
        for number, ((kind, level), weight) in enumerate(rows)
    ]
    weights = mixture_weights(contexts)
    assert weights.sum() == pytest.approx(1)
    by_side: dict[str, float] = defaultdict(float)
    by_level: dict[int, float] = defaultdict(float)
    for one, weight in zip(contexts, weights, strict=True):
        by_side[one.kind] += weight
        if one.kind == "active":
            by_level[one.level] += weight
    sides = by_side.keys()
    if len(sides) == 3:
        assert by_side == pytest.approx({"active": 0.5, "silent": 0.25, "hard_silent": 0.25})
    elif "active" in sides and len(sides) == 2:
        assert list(by_side.values()) == pytest.approx([0.5, 0.5])
    for share in by_level.values():
        assert share == pytest.approx(by_side["active"] / len(by_level))
    # Within a stratum, weights go with the inverse sampling probability.
    first = contexts[0]
    for one, weight in zip(contexts, weights, strict=True):
        if (one.kind, one.level) == (first.kind, first.level):
            assert weight / weights[0] == pytest.approx(one.weight / first.weight)


@settings(max_examples=25)
@given(st.randoms(), st.integers(0, 5))
def test_order_does_not_matter(rng: random.Random, seed: int) -> None:
    contexts, simulated = sample(seed, per_level=1)
    order = list(range(len(contexts)))
    rng.shuffle(order)
    expected = window_scores(contexts, simulated)
    found = window_scores([contexts[i] for i in order], [simulated[i] for i in order])
    for name in ("correlation", "discrimination"):
        for end in ("value", "low", "high"):
            assert getattr(getattr(found, name), end) == pytest.approx(
                getattr(getattr(expected, name), end)
            )


def test_scale_of_the_simulation_does_not_matter() -> None:
    plain = window_scores(*sample(3))
    scaled = window_scores(*sample(3, scale=7.5))
    assert scaled.correlation.low == pytest.approx(plain.correlation.low)
    assert scaled.discrimination.high == pytest.approx(plain.discrimination.high)


def test_interval_holds_its_value_and_narrows_with_the_sample() -> None:
    narrow = window_scores(*sample(4, per_level=20, silent=100, hard_silent=100))
    wide = window_scores(*sample(4))
    for few, many in (
        (wide.correlation, narrow.correlation),
        (wide.discrimination, narrow.discrimination),
    ):
        for interval in (few, many):
            assert interval.low < interval.value < interval.high
        # Ten times the windows: the width falls by about the square root of ten.
        assert 2 < (few.high - few.low) / (many.high - many.low) < 6


def test_copies_in_one_document_add_no_certainty() -> None:
    """Each window twice in its document: half as certain as the count of windows would say."""
    contexts, simulated = sample(5, per_level=10, silent=50, hard_silent=50)
    single = window_scores(contexts, simulated)
    copies = [replace(one, start=100) for one in contexts]
    same = window_scores(contexts + copies, simulated * 2)
    apart = window_scores(
        contexts + [replace(one, document=f"copy {one.document}") for one in contexts],
        simulated * 2,
    )
    for name in ("correlation", "discrimination"):
        one, two, free = (getattr(s, name) for s in (single, same, apart))
        assert (two.high - two.low) / (one.high - one.low) == pytest.approx(1, abs=0.1)
        assert (free.high - free.low) / (one.high - one.low) == pytest.approx(0.71, abs=0.1)


def test_a_perfect_simulation_is_not_certain() -> None:
    contexts, simulated = sample(6, noise=0)
    scores = window_scores(contexts, simulated)
    assert scores.correlation.value == pytest.approx(1)
    assert scores.discrimination.value == pytest.approx(1)
    assert 0.3 < scores.correlation.low < 0.98
    assert 0.7 < scores.discrimination.low < 0.99
    assert scores.correlation.high == pytest.approx(1)


def test_a_constant_simulation_has_no_correlation() -> None:
    contexts, simulated = sample()
    scores = window_scores(contexts, [np.zeros_like(one) for one in simulated])
    assert math.isnan(scores.correlation.value)
    assert math.isnan(scores.correlation.low)
    assert scores.discrimination.value == pytest.approx(0.5)
    assert scores.discrimination.high == pytest.approx(0.5)


@pytest.mark.parametrize("kept", [("active",), ("silent", "hard_silent")])
def test_one_side_alone_cannot_be_discriminated(kept: tuple[str, ...]) -> None:
    contexts, simulated = sample()
    chosen = [number for number, one in enumerate(contexts) if one.kind in kept]
    scores = window_scores([contexts[i] for i in chosen], [simulated[i] for i in chosen])
    assert math.isnan(scores.discrimination.value)
    assert math.isnan(scores.correlation.value) == (kept != ("active",))


def test_differences_between_levels_are_no_doubt() -> None:
    """Levels have fixed sizes: missing just the weak half is surer than missing any half."""
    contexts, simulated = sample(7, per_level=10, silent=50, hard_silent=50, noise=0)
    weak = [
        np.zeros(8) if one.level <= 5 else sim for one, sim in zip(contexts, simulated, strict=True)
    ]
    rng = np.random.default_rng(0)
    some = [np.zeros(8) if rng.random() < 0.5 else sim for sim in simulated]
    by_level, at_random = window_scores(contexts, weak), window_scores(contexts, some)
    for name in ("correlation", "discrimination"):
        sure, unsure = getattr(by_level, name), getattr(at_random, name)
        assert sure.high - sure.low < 0.7 * (unsure.high - unsure.low)
