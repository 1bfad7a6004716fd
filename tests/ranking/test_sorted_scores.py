"""Average precision of many features at once, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from safesail.ranking import _sorted_scores
from safesail.ranking._sorted_scores import SortedScores


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
    scores = generator.random(size=(300, 20)).astype(np.float32)
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
def test_weights_are_scikit_learns(
    case: tuple[NDArray, NDArray, NDArray], data: st.DataObject
) -> None:
    scores, positive, _ = case
    weights = data.draw(arrays(np.int64, (3, len(scores)), elements=st.integers(0, 3)))
    found = SortedScores.of(scores).average_precision(weights * positive, weights)
    assert found.shape == (3, scores.shape[1])
    for values, weight in zip(found, weights, strict=True):
        if weight[positive].sum() == 0:
            assert np.isnan(values).all()
        else:
            expected = [
                average_precision_score(positive, column, sample_weight=weight)
                for column in scores.T
            ]
            assert values == pytest.approx(expected, abs=1e-9)


def test_what_is_below_zero_counts_as_silent() -> None:
    positive, used = np.array([True, False, False]), np.ones(3, dtype=bool)
    found = SortedScores.of(np.array([[-3.0], [-1.0], [0.0]])).average_precision(positive, used)
    assert found == pytest.approx([1 / 3])


def test_sorting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((40, 23)) * (generator.random((40, 23)) < 0.3)
    whole = SortedScores.of(scores)
    monkeypatch.setattr(_sorted_scores, "_BLOCK", 5)
    blocks = SortedScores.of(scores)
    for name in ("texts", "last", "starts"):
        assert (getattr(whole, name) == getattr(blocks, name)).all()


@given(
    arrays(np.float32, (14, 6), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    arrays(np.bool_, 14),
    arrays(np.float64, 14, elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])),
    st.integers(1, 14),
)
@settings(deadline=None)
def test_no_feature_is_better_than_its_first_texts_allow(
    scores: NDArray, positive: NDArray, weight: NDArray, places: int
) -> None:
    """Also with ties, silent features, texts that do not count."""
    assume((weight * positive).sum() > 0)
    table = SortedScores.of(scores)
    precision = table.average_precision(positive * weight, weight)
    bound = table.highest(places).bound(positive * weight, weight)
    assert (precision <= bound + 1e-12).all()


def test_the_bound_tells_a_dense_feature_from_a_detector() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((400, 2))
    positive = np.arange(400) < 40
    scores[positive, 0] += 1
    detector, dense = SortedScores.of(scores).highest(80).bound(positive, np.ones(400))
    assert detector == 1
    assert dense < 0.6
