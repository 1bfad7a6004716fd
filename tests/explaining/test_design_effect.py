"""The pooled design effect against known intra-prompt correlations."""

from __future__ import annotations

import random

import numpy as np
import pytest

from safesail.explaining._design_effect import (
    INDEPENDENT,
    Contribution,
    DesignEffect,
    PooledDesignEffect,
    contribution,
    mean_size,
)
from safesail.explaining._sample import Sample


def sample(rng: np.random.Generator, shared: float, sizes: list[int]) -> tuple[Sample, list[int]]:
    """One value a window; an error of variance `shared` out of 1 is that of its whole prompt.

    It helps active windows and harms silent ones, as a misread explanation does.
    """
    strata, prompts, values = [], [], []
    for prompt, size in enumerate(sizes):
        effect = rng.normal(0, np.sqrt(shared))
        for place in range(size):
            active = place % 2 == 0
            strata.append(("active", place // 2 % 5 + 1) if active else ("silent", 0))
            noise = rng.normal(0, np.sqrt(1 - shared))
            values.append((1 if active else -1) * (0.7 + effect) + noise)
            prompts.append(prompt)
    count = len(values)
    built = Sample(
        [np.array([float(level)]) for _, level in strata],
        [np.array([value]) for value in values],
        np.full(count, 1 / count),
        strata,
        [str(number) for number in range(count)],
    )
    return built, prompts


@pytest.mark.parametrize("sizes", [[40, 40, 40], [30, 30], [50, 30, 16]])
@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_the_pooled_estimate_finds_the_shared_error(sizes: list[int], shared: float) -> None:
    rng = np.random.default_rng(1)
    found = [contribution(*sample(rng, shared, sizes)) for _ in range(300)]
    estimates = np.array([one.discrimination for one in found if one])
    error = estimates.std() / np.sqrt(len(estimates))
    # What each window contributes to the AUROC is nearly linear in its value here.
    assert estimates.mean() == pytest.approx(shared, abs=3 * error + 0.15 * shared)


def test_the_true_variance_is_that_of_the_formula() -> None:
    """Many samples' AUROC varies as one sample's items say, times 1 + (m - 1) rho."""
    rng = np.random.default_rng(2)
    areas, naive = [], []
    for _ in range(600):
        built, _ = sample(rng, 0.05, [40, 40])
        values = np.array([one[0] for one in built.simulated])
        beats = values[built.active][:, None] > values[~built.active]
        areas.append(beats.mean())
        sides = (beats.mean(axis=1), beats.mean(axis=0))
        naive.append(sum(side.var(ddof=1) / len(side) for side in sides))
    expected = DesignEffect(discrimination=0.05).of("discrimination", [40, 40])
    assert expected == pytest.approx(2.95)
    assert np.var(areas) / np.mean(naive) == pytest.approx(expected, rel=0.2)


def test_unequal_prompts_count_by_the_size_an_item_sees() -> None:
    assert mean_size([40, 40]) == 40
    assert mean_size([30, 10]) == 25
    effect = DesignEffect(correlation=0.1, discrimination=0.01)
    assert effect.of("discrimination", [101]) == pytest.approx(2)
    assert effect.of("correlation", [30, 10]) == pytest.approx(3.4)
    assert INDEPENDENT.of("correlation", [56, 40]) == 1


def test_order_of_features_does_not_matter() -> None:
    rng = random.Random(0)
    found = [Contribution(rng.gauss(0.02, 0.1), rng.gauss(0.01, 0.1)) for _ in range(50)]
    numbers = list(range(50))
    first = PooledDesignEffect()
    for number in numbers:
        first.add(number, found[number])
    rng.shuffle(numbers)
    second = PooledDesignEffect()
    for number in numbers:
        second.add(number, found[number])
    assert first.value() == second.value()
    assert first.value().features == 50


def test_few_features_say_little_and_none_nothing() -> None:
    assert PooledDesignEffect().value() == INDEPENDENT
    pooled = PooledDesignEffect()
    pooled.add(0, Contribution(0.03, 0.03))
    pooled.add(1, None)
    assert pooled.value().features == 1
    assert 0 < pooled.value().discrimination < 0.03


def test_a_negative_estimate_is_no_gain() -> None:
    pooled = PooledDesignEffect()
    for number in range(30):
        pooled.add(number, Contribution(-0.01, None))
    assert pooled.value() == DesignEffect(0.0, 0.0, 30)


def test_one_prompt_or_no_error_says_nothing() -> None:
    rng = np.random.default_rng(3)
    assert contribution(*sample(rng, 0.0, [40])) is None
    built, prompts = sample(rng, 0.0, [20, 20])
    perfect = [np.array([1.0 if active else 0.0]) for active in built.active]
    flawless = Sample(built.true, perfect, built.weights, built.strata, built.documents)
    found = contribution(flawless, prompts)
    assert found is not None
    assert found.discrimination is None
