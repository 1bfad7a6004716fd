"""Separation and separating features against scikit-learn and slow, obvious implementations."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from safesail.concepts import ConceptSet, ContrastPair
from safesail.ranking._design import SPLITS, PairDesign
from safesail.ranking._separating import originals, separating_features
from safesail.ranking._separation import (
    mean_share_interval,
    receiver_curve,
    separate,
    share_interval,
)
from safesail.ranking._sorted_scores import SortedScores


@given(st.integers(2, 30), st.data())
@settings(deadline=None)
def test_areas_are_scikit_learns_with_weights(texts: int, data: st.DataObject) -> None:
    scores = data.draw(arrays(np.float32, texts, elements=st.sampled_from([0, 1, 2, 0.5])))
    positive = data.draw(arrays(bool, texts))
    positive[0], positive[1] = True, False
    weights = data.draw(arrays(np.int64, (3, texts), elements=st.integers(0, 3)))
    for value, weight in zip(receiver_curve(scores, positive, weights), weights, strict=True):
        if weight[positive].sum() == 0 or weight[~positive].sum() == 0:
            assert np.isnan(value)
        else:
            expected = roc_auc_score(positive, scores, sample_weight=weight)
            assert value == pytest.approx(expected)


def material(seed: int) -> tuple[PairDesign, NDArray[np.float32], NDArray[np.bool_]]:
    """Two concepts of 16 pairs, 30 features; the first ones lean towards concept a."""
    pairs = [ContrastPair(c, f"{c} yes {n}", f"{c} no {n}") for c in "ab" for n in range(16)]
    design = PairDesign.of(ConceptSet(pairs), seed)
    generator = np.random.default_rng(seed)
    pooled = generator.random((32 * 2, 30)) * (generator.random((64, 30)) < 0.6)
    own = design.roles["a"].positive
    pooled[own, :6] += generator.random((16, 6)) * np.linspace(1, 0.2, 6)
    pooled = np.round(pooled, 1).astype(np.float32)  # ties
    wins = pooled[design.positive] > pooled[design.negative]
    return design, pooled, wins[design.roles["a"].pairs]


@pytest.mark.parametrize("seed", range(4))
def test_cross_fitting_by_hand(seed: int) -> None:
    """Every split, both ways, one feature at a time, by scikit-learn."""
    design, pooled, wins = material(seed)
    role = design.roles["a"]
    found = separate(pooled, wins, SortedScores.of(pooled), role, design)
    best, top10, auroc, f1, probe = ([] for _ in range(5))
    for split in range(SPLITS):
        half = design.halves[split][design.cluster_of_texts]
        for judged in (0, 1):
            fit, judge = (role.weight > 0) & (half != judged), (role.weight > 0) & (half == judged)
            pairs = design.halves[split][design.clusters[role.pairs]] != judged
            tried = [i for i in range(30) if wins[pairs, i].any()]

            def precision(feature: int, on: NDArray, role=role) -> float:
                return average_precision_score(
                    role.positive[on], pooled[on, feature], sample_weight=role.weight[on]
                )

            order = sorted(tried, key=lambda i, fit=fit: -precision(i, fit))  # stable, as ours
            best.append(precision(order[0], judge))
            top10.append(np.mean([precision(i, judge) for i in order[:10]]))
            first = pooled[:, order[0]]
            weight = role.weight
            auroc.append(
                roc_auc_score(role.positive[judge], first[judge], sample_weight=weight[judge])
            )
            cuts = np.unique(first[fit])

            def f1_at(cut: float, on: NDArray, role=role, first=first) -> float:
                return f1_score(role.positive[on], first[on] >= cut, sample_weight=role.weight[on])

            at = max(cuts, key=lambda cut, fit=fit, f1_at=f1_at: f1_at(cut, fit))
            f1.append(f1_at(at, judge))
            if split == 0:
                x = pooled[:, order[:5]]
                x = (x - x[fit].mean(0)) / x[fit].std(0)
                logistic = LogisticRegression(tol=1e-8)
                logistic.fit(x[fit], role.positive[fit], sample_weight=weight[fit])
                scores = logistic.decision_function(x[judge])
                probe.append(
                    average_precision_score(
                        role.positive[judge], scores, sample_weight=weight[judge]
                    )
                )
    assert found.best == pytest.approx(np.mean(best))
    assert found.top10 == pytest.approx(np.mean(top10))
    assert found.auroc == pytest.approx(np.mean(auroc))
    assert found.f1 == pytest.approx(np.mean(f1), abs=0.02)  # of equal thresholds either may do
    assert found.probe5 == pytest.approx(np.mean(probe), abs=1e-6)


def test_resamples_pick_again_on_their_own_half() -> None:
    """By hand for one resample: weighted precision on the half, its best feature on the other."""
    design, pooled, wins = material(1)
    role = design.roles["a"]
    found = separate(pooled, wins, SortedScores.of(pooled), role, design)
    draw = 17
    weight = design.draws[draw][design.cluster_of_texts] * role.weight
    even = role.weight
    values, areas = [], []
    for split, judged in product(range(2), (0, 1)):  # two of the four splits are resampled
        half = design.halves[split][design.cluster_of_texts]
        fit, judge = (role.weight > 0) & (half != judged), (role.weight > 0) & (half == judged)
        pairs = design.halves[split][design.clusters[role.pairs]] != judged
        tried = [i for i in range(30) if wins[pairs, i].any()]

        def precision(feature: int, on: NDArray, by: NDArray) -> float:
            return average_precision_score(
                role.positive[on], pooled[on, feature], sample_weight=by[on]
            )

        fitted = {i: precision(i, fit, even) for i in tried}
        rivals = sorted(tried, key=lambda i, fitted=fitted: -fitted[i])[:10]
        rivals = [i for i in rivals if fitted[i] >= fitted[rivals[0]] - 0.25][:5]
        again = max(rivals, key=lambda i, fit=fit: precision(i, fit, weight))
        values.append(precision(again, judge, weight))
        areas.append(
            roc_auc_score(role.positive[judge], pooled[judge, again], sample_weight=weight[judge])
        )
    assert found.resampled[draw] == pytest.approx(np.mean(values))
    assert found.resampled_auroc[draw] == pytest.approx(np.mean(areas))


def test_the_interval_of_a_share_grows_where_nothing_varies() -> None:
    constant = np.ones(200)
    low, high = share_interval(1.0, constant, 40)
    assert 0.94 < low < 0.99
    assert high == 1
    few_low, _ = share_interval(1.0, constant, 8)
    assert few_low < low
    assert np.isnan(share_interval(1.0, constant, 3)).all()
    assert np.isnan(share_interval(0.5, np.full(200, np.nan), 40)).all()


def test_the_interval_of_a_mean_over_concepts_minds_the_one_with_few_pairs() -> None:
    generator = np.random.default_rng(0)

    def width(errors: list[float], evidence: list[int]) -> float:
        resampled = 0.5 + generator.normal(size=(len(errors), 4_000)) * np.array(errors)[:, None]
        low, high = mean_share_interval([0.5] * len(errors), resampled, evidence)
        assert low < 0.5 < high
        return high - low

    alone = width([0.05], [400])
    assert alone == pytest.approx(2 * 1.96 * 0.05, rel=0.05)
    # Sixteen like it: a quarter of the width.
    assert width([0.05] * 16, [400] * 16) == pytest.approx(alone / 4, rel=0.05)
    # One of five pairs varies so much that its three degrees of freedom decide.
    few = width([0.01] * 3 + [0.1], [400] * 3 + [5])
    assert few > 1.5 * width([0.01] * 3 + [0.1 * np.sqrt(5 / 3)], [400] * 4)
    assert np.isnan(mean_share_interval([0.5, 0.5], np.full((2, 200), 0.5), [40, 3])).all()
    assert np.isnan(mean_share_interval([], np.zeros((0, 200)), [])).all()


def test_resamples_that_miss_a_concept_do_not_narrow_the_mean() -> None:
    generator = np.random.default_rng(1)
    whole = 0.5 + generator.normal(size=(2, 4_000)) * 0.05
    holed = whole.copy()
    holed[0, generator.random(4_000) < 0.5] = np.nan
    low, high = mean_share_interval([0.5, 0.5], whole, [40, 40])
    assert mean_share_interval([0.5, 0.5], holed, [40, 40]) == pytest.approx((low, high), abs=0.003)


def test_separating_features_by_counting() -> None:
    design, _, _ = material(0)
    role = design.roles["a"]
    good = role.positive.astype(np.float32)
    near = good.copy()
    near[np.flatnonzero(role.positive)[:8]] = 0  # half of them: precision below the level
    noisy = good + np.random.default_rng(5).random(64).astype(np.float32) * 0.9
    columns = [good, 2 * good, noisy, near, np.zeros(64, np.float32)]
    planted = np.stack(columns, axis=1).astype(np.float32)
    precision = [
        average_precision_score(role.positive, column, sample_weight=role.weight)
        for column in columns
    ]
    assert [value >= 0.75 for value in precision] == [True, True, True, False, False]
    found = separating_features(planted, SortedScores.of(planted), role, design)
    # The second is a copy of the first; the third is another one only if it correlates less.
    alike = np.corrcoef(good, noisy)[0, 1] >= 0.9
    assert found.count == (1 if alike else 2)
    low, high = found.interval
    assert low <= found.count <= high


def test_copies_belong_to_the_first_they_are_like() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 100))
    features = np.stack([a, b, a + 0.01 * b, b * 3, a * 0 + 1, -a], axis=1)
    assert originals(features).tolist() == [0, 1, 0, 1, 4, 5]
