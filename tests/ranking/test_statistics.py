"""Statistics of the ranking against scikit-learn, SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest
from sklearn.metrics import average_precision_score

from safesail.concepts import ContrastPair
from safesail.ranking._statistics import (
    LEAST_DISCORDANT,
    SortedScores,
    clusters_of_pairs,
    halve,
    q_values,
    resampled_average_precision,
    share_of_pairs,
)


@st.composite
def judged_texts(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Scores with many ties [T, F], which texts are positive, which are used."""
    texts, features = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    scores = draw(arrays(np.float32, (texts, features), elements=st.sampled_from([0, 1, 2, 0.5])))
    positive = draw(arrays(bool, texts))
    used = draw(arrays(bool, texts))
    first, second = draw(st.permutations(range(texts)))[:2]
    positive[first], used[first] = True, True
    positive[second] = False
    return scores, positive, used


@given(judged_texts())
@settings(deadline=None)
def test_average_precision_is_scikit_learns(case: tuple[NDArray, NDArray, NDArray]) -> None:
    scores, positive, used = case
    found = SortedScores.of(scores).average_precision(positive, used)
    for feature, value in enumerate(found):
        expected = average_precision_score(positive[used], scores[used, feature])
        assert value == pytest.approx(expected, abs=1e-6)


def test_average_precision_without_ties_and_of_some_features() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(300, 20)).astype(np.float32)
    positive, used = generator.random(300) < 0.3, generator.random(300) < 0.8
    chosen = np.array([19, 3])
    found = SortedScores.of(scores).select(chosen).average_precision(positive, used)
    expected = [average_precision_score(positive[used], scores[used, f]) for f in chosen]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_constant_feature_has_the_share_of_positives() -> None:
    positive = np.array([True, False, False, True, False])
    found = SortedScores.of(np.zeros((5, 1))).average_precision(positive, np.ones(5, dtype=bool))
    assert found == pytest.approx([0.4])


@given(judged_texts(), st.data())
@settings(deadline=None)
def test_resamples_are_scikit_learns_with_weights(
    case: tuple[NDArray, NDArray, NDArray], data: st.DataObject
) -> None:
    scores, positive, _ = case
    weights = data.draw(arrays(np.int64, (3, len(scores)), elements=st.integers(0, 3)))
    found = resampled_average_precision(scores[:, 0], positive, weights)
    for value, weight in zip(found, weights, strict=True):
        if weight[positive].sum() == 0:
            assert np.isnan(value)
        else:
            expected = average_precision_score(positive, scores[:, 0], sample_weight=weight)
            assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("pairs", [1, 7, 40])
def test_intervals_of_f_are_scipys_wilson(pairs: int) -> None:
    wins = np.arange(pairs + 1)
    f, low, high = share_of_pairs(wins, pairs)
    for won in wins:
        interval = binomtest(int(won), pairs).proportion_ci(method="wilson")
        assert f[won] == won / pairs
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
    assert q_values(*counts) == pytest.approx(by_hand(*counts), rel=1e-9)


def test_features_with_few_discordant_pairs_do_not_dilute() -> None:
    """Thousands of features that never differ leave a good one's q where it was."""
    wins, losses = np.zeros(10_000, dtype=int), np.zeros(10_000, dtype=int)
    wins[5], losses[5] = 12, 1
    assert q_values(wins, losses)[5] == binomtest(12, 13, alternative="greater").pvalue
    wins[:], losses[:] = LEAST_DISCORDANT - 1, 0
    assert (q_values(wins, losses) == 1).all()


def pair(concept: str, positive: str, negative: str) -> ContrastPair:
    return ContrastPair(concept, positive, negative)


def test_pairs_that_share_a_text_are_one_cluster() -> None:
    pairs = [
        pair("a", "p0", "n0"),
        pair("a", "p1", "n1"),
        pair("b", "p2", "n0"),  # shares a twin with the first
        pair("b", "n1", "p3"),  # its positive is the second's twin
        pair("c", "p4", "p3"),  # chained to the second by the fourth
        pair("c", "p5", "n5"),
    ]
    clusters = clusters_of_pairs(pairs)
    groups = [{i for i in range(6) if clusters[i] == c} for c in sorted(set(clusters.tolist()))]
    assert sorted(groups, key=min) == [{0, 2}, {1, 3, 4}, {5}]
    assert sorted(set(clusters.tolist())) == [0, 1, 2]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 100))
@settings(deadline=None)
def test_halves_are_even_within_every_concept(counts: list[int], seed: int) -> None:
    pairs = [
        pair(f"c{c}", f"p{c} {n}", f"n{c} {n}") for c, k in enumerate(counts) for n in range(k)
    ]
    halves = halve(pairs, clusters_of_pairs(pairs), seed)
    assert set(halves.tolist()) <= {0, 1}
    place = 0
    for count in counts:
        second = int(halves[place : place + count].sum())
        assert abs(2 * second - count) <= 1
        place += count


@given(st.integers(0, 1_000))
@settings(deadline=None, max_examples=30)
def test_no_text_lies_in_both_halves(seed: int) -> None:
    generator = np.random.default_rng(seed)
    texts = [f"t{n}" for n in range(25)]
    drawn = [generator.choice(25, 2, replace=False) for _ in range(30)]
    pairs = [pair(f"c{n % 3}", texts[a], texts[b]) for n, (a, b) in enumerate(drawn)]
    clusters = clusters_of_pairs(pairs)
    half_of_pair = halve(pairs, clusters, seed)[clusters]
    half_of_text: dict[str, int] = {}
    for half, one in zip(half_of_pair.tolist(), pairs, strict=True):
        for text in (one.positive, one.negative):
            assert half_of_text.setdefault(text, half) == half


def test_large_clusters_are_spread() -> None:
    """Six pairs with one twin, then six single ones: six pairs in either half."""
    pairs = [pair("a", f"p{n}", "shared") for n in range(6)]
    pairs += [pair("a", f"q{n}", f"n{n}") for n in range(6)]
    clusters = clusters_of_pairs(pairs)
    assert halve(pairs, clusters, 1)[clusters].sum() == 6


def test_halves_follow_the_seed() -> None:
    pairs = [pair("a", f"p{n}", f"n{n}") for n in range(40)]
    clusters = clusters_of_pairs(pairs)
    first = halve(pairs, clusters, 1)
    assert (first == halve(pairs, clusters, 1)).all()
    assert (first != halve(pairs, clusters, 2)).any()
    means = [halve(pairs, clusters, seed)[0] for seed in range(200)]
    assert 70 < sum(means) < 130


@pytest.mark.proof
def test_p_values_are_conservative_under_the_null() -> None:
    """One feature alone: q is p, which may not be smaller than uniform."""
    generator = np.random.default_rng(0)
    wins = generator.binomial(31, 0.5, size=4_000)
    q = np.array([q_values(np.array([w]), np.array([31 - w]))[0] for w in wins])
    assert kstest(q, "uniform", alternative="greater").pvalue > 0.001
    assert (q <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4_000)
