"""Shares, counts, their chance and their intervals, against SciPy and slow counting by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, kstest

from safesail.ranking._distinguish import LEAST_DISCORDANT, Distinction, mean_interval, wilson


def distinction(
    wins: NDArray,
    losses: NDArray,
    clusters: NDArray | None = None,
    voting: NDArray | None = None,
) -> Distinction:
    alone = np.arange(len(wins)) if clusters is None else clusters
    all_vote = np.ones(len(wins), dtype=bool) if voting is None else voting
    return Distinction.of(wins.astype(bool), losses.astype(bool), alone, all_vote)


def of_counts(wins: NDArray, losses: NDArray) -> Distinction:
    """Features with so many wins and losses among 40 pairs of which none is tied to another."""
    pair = np.arange(40)[:, None]
    return distinction(pair < wins, (pair >= wins) & (pair < wins + losses))


@pytest.mark.parametrize("pairs", [1, 7, 40])
def test_intervals_of_f_are_scipys_wilson(pairs: int) -> None:
    share = np.arange(pairs + 1) / pairs
    low, high = wilson(share, pairs)
    for won in range(pairs + 1):
        interval = binomtest(won, pairs).proportion_ci(method="wilson")
        assert (low[won], high[won]) == pytest.approx((interval.low, interval.high), abs=1e-12)


def by_hand(wins: NDArray, losses: NDArray) -> list[float]:
    """Sign tests, then the step-up procedure of Benjamini and Hochberg, one by one."""
    tested = [i for i in range(len(wins)) if wins[i] + losses[i] >= LEAST_DISCORDANT]
    p = {
        i: binomtest(int(wins[i]), int(wins[i] + losses[i]), alternative="greater").pvalue
        for i in tested
    }
    adjusted = [1.0] * len(wins)
    smallest = 1.0
    for place, i in reversed(list(enumerate(sorted(tested, key=lambda i: p[i]), start=1))):
        smallest = min(smallest, p[i] * len(tested) / place)
        adjusted[i] = smallest
    return adjusted


@given(arrays(np.int64, (2, 15), elements=st.integers(0, 20)))
@settings(deadline=None)
def test_q_values_by_hand(counts: NDArray) -> None:
    assert of_counts(*counts).q_values() == pytest.approx(by_hand(*counts), rel=1e-9)


def test_features_with_few_discordant_pairs_do_not_dilute() -> None:
    """Thousands of features that never differ leave a good one's q where it was."""
    wins, losses = np.zeros(10_000, dtype=int), np.zeros(10_000, dtype=int)
    wins[5], losses[5] = 12, 1
    q = of_counts(wins, losses).q_values()
    assert q[5] == binomtest(12, 13, alternative="greater").pvalue
    wins[:], losses[:] = LEAST_DISCORDANT - 1, 0
    assert (of_counts(wins, losses).q_values() == 1).all()


def test_a_cluster_votes_once() -> None:
    """Three pairs of one template, then two single ones; one feature."""
    clusters = np.array([0, 0, 0, 1, 2])
    wins, losses = np.array([[1, 1, 0, 0, 1]]).T, np.array([[0, 0, 1, 1, 0]]).T
    found = distinction(wins, losses, clusters)
    assert found.f == pytest.approx([3 / 5])  # pairs
    assert (found.votes.item(), found.counter_votes.item(), found.evidence) == (2, 1, 3)
    # Without the first pair's say the first cluster is tied, and the share of pairs is the same.
    fewer = distinction(wins, losses, clusters, np.array([0, 1, 1, 1, 1], dtype=bool))
    assert (fewer.f.item(), fewer.votes.item(), fewer.counter_votes.item()) == (3 / 5, 1, 1)
    assert fewer.excess(0.3) == pytest.approx(1 - 3 / 4)  # one vote of three, two coins
    # One win and one loss in a cluster cancel: it has no vote.
    tied = distinction(np.array([[1, 0]]).T, np.array([[0, 1]]).T, np.array([0, 0]))
    assert (tied.votes.item(), tied.counter_votes.item()) == (0, 0)


@given(arrays(np.int8, (6, 4), elements=st.sampled_from([-1, 0, 1])), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_the_excess_is_the_mean_over_all_swaps(signs: NDArray, needed: int) -> None:
    """Independent source: every one of the 2^6 ways to swap sides, counted."""
    level = needed / 6
    counts = []
    for swaps in product([1, -1], repeat=6):
        f = (signs * np.array(swaps)[:, None] == 1).mean(0)
        counts.append((f >= level - 1e-9).sum())
    found = distinction(signs == 1, signs == -1)
    assert found.excess(level) == pytest.approx(found.count(level) - np.mean(counts))


def test_i_cdf_is_the_area_under_the_counts() -> None:
    """DESIGN: mean of f = area under L0_t over t, divided by width."""
    generator = np.random.default_rng(1)
    found = distinction(generator.random((30, 50)) < 0.4, np.zeros((30, 50)))
    area = sum(found.count(t / 30) for t in range(1, 31)) / 30
    assert found.i_cdf == pytest.approx(area / 50)
    assert found.i_cdf == pytest.approx(found.by_pair.mean())


@pytest.mark.parametrize("tested", [1, 20, 300])
@pytest.mark.parametrize("evidence", [6, 12, 40])
def test_the_least_callable_f_is_where_calls_begin(tested: int, evidence: int) -> None:
    """One feature that wins k pairs among others that are tested and go either way."""
    rate = 0.05
    pair = np.arange(evidence)[:, None]

    def called(won: int) -> bool:
        wins = np.repeat(pair % 2 == 0, tested, axis=1)
        losses = ~wins
        wins[:, 0], losses[:, 0] = pair[:, 0] < won, False
        found = distinction(wins, losses)
        return bool(found.q_values()[0] <= rate)

    wins = np.repeat(pair % 2 == 0, tested, axis=1)
    least = distinction(wins, ~wins).least_callable(rate)
    calls = [won for won in range(evidence + 1) if called(won)]
    if calls:
        assert least == pytest.approx(min(calls) / evidence)
    else:
        assert np.isnan(least)


@given(st.integers(0, 60), st.integers(0, 300))
@settings(deadline=None, max_examples=40)
def test_beside_called_features_less_is_asked_of_the_next(good: int, dull: int) -> None:
    """One more feature that wins some pairs and loses none, tried at every number of them."""

    def found(extra: int) -> Distinction:
        wins = [40] * good + [extra] + [20] * dull
        losses = [0] * (good + 1) + [20] * dull
        return of_counts(np.array(wins), np.array(losses))

    # Tested, and not called: the number of tested features is that with the extra one.
    least = found(LEAST_DISCORDANT).least_callable(0.05)
    calls = [won for won in range(41) if found(won).q_values()[good] <= 0.05]
    if min(calls) > LEAST_DISCORDANT:
        assert least == pytest.approx(min(calls) / 40)
    else:
        assert least == pytest.approx(LEAST_DISCORDANT / 40)


def test_the_interval_of_a_mean_is_near_scipys() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    draws = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), 20_000)
    low, high = mean_interval(values.mean(), draws @ values / 40, 40)
    expected = bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    width = expected.high - expected.low
    # Wider than the percentile bootstrap by sqrt(40 / 39) and Student's quantile, symmetric.
    assert high - low == pytest.approx(width * np.sqrt(40 / 39) * 2.0227 / 1.96, rel=0.03)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert np.isnan(mean_interval(1.0, draws @ values, 1)).all()


@pytest.mark.proof
def test_p_values_are_conservative_under_the_null() -> None:
    """One feature alone: q is p, which may not be smaller than uniform."""
    generator = np.random.default_rng(0)
    wins = generator.binomial(31, 0.5, size=4_000)
    q = np.array([of_counts(np.array([w]), np.array([31 - w])).q_values()[0] for w in wins])
    assert kstest(q, "uniform", alternative="greater").pvalue > 0.001
    assert (q <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4_000)
