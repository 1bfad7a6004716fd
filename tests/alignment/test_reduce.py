"""Directions become a basis: against the exact span, and where the rank falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import subspace_angles

from safesail.alignment import (
    FeatureContrast,
    layer_from_features,
    projection_distance,
    reduce_pca80,
    reduce_weighted,
)
from safesail.errors import AlignmentError


def directions(seed: int, count: int, dimensions: int = 64) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def span(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.linalg.qr(rows.T.astype(np.float64))[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_basis_spans_the_directions_and_is_orthonormal(seed: int, rank: int) -> None:
    rows = directions(seed, rank)
    weights = np.random.default_rng(seed).uniform(0.1, 1, rank)
    found = reduce_weighted(rows, weights, rank)
    assert found.basis.dtype == np.float32
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(rank), atol=1e-5)
    assert projection_distance(found.basis, span(rows)) < 1e-4
    assert found.warnings == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_the_distance_is_that_of_the_principal_angles(seed: int, one: int, two: int) -> None:
    first, second = span(directions(seed, one)), span(directions(seed + 1, two))
    angles = subspace_angles(first, second)  # min(one, two) of them
    expected = np.sqrt(2 * np.sum(np.sin(angles) ** 2) + abs(one - two))
    assert projection_distance(first, second) == pytest.approx(expected, abs=1e-9)
    assert projection_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_light_directions_hardly_turn_the_basis() -> None:
    rows = directions(1, 12)
    weights = np.where(np.arange(12) < 3, 1.0, 0.01)
    found = reduce_weighted(rows, weights, 3)
    assert projection_distance(found.basis, span(rows[:3])) < 0.01
    assert len(found.spectrum) == 12
    assert (np.diff(found.spectrum) <= 0).all()


def test_the_norm_of_a_decoder_row_counts_as_its_activation_does() -> None:
    rows = directions(2, 5)
    weights = np.array([1.0, 0.8, 0.6, 0.2, 0.1])
    scale = np.array([10.0, 0.1, 3.0, 1.0, 0.5])
    one = reduce_weighted(rows, weights, 3)
    other = reduce_weighted(rows * scale[:, None], weights / scale, 3)
    assert projection_distance(one.basis, other.basis) < 1e-5


def test_collinear_directions_lower_the_rank_and_it_is_said() -> None:
    rows = directions(3, 3)
    rows = np.concatenate([rows, rows[:1] * 2, -rows[1:2]])
    found = reduce_weighted(rows, np.ones(5), 4)
    assert found.basis.shape == (64, 3)
    assert "rank 3 instead of 4" in found.warnings[0]


def test_fewer_features_than_rank_are_refused() -> None:
    with pytest.raises(AlignmentError, match="2 features differ"):
        reduce_weighted(directions(1, 4), np.array([1.0, 0, 0.5, 0]), 3)
    contrast = FeatureContrast(np.array([1.0, 0, 0.5, 0]), np.array([1.0, 0, 0.5, 0]))
    with pytest.raises(AlignmentError, match="fewer than rank 3"):
        layer_from_features(
            directions(1, 4), contrast, 3, stream=1, hook_point="blocks.0.hook_resid_post", sae="a"
        )


def test_pca_to_a_share_drops_true_directions_and_says_how_many() -> None:
    found = reduce_pca80(np.eye(20, 64, dtype=np.float32)[:10])
    assert found.basis.shape == (64, 8)  # of ten orthogonal directions of equal weight
    assert "keeps 8 of 10" in found.warnings[0]
    assert "drops 2" in found.warnings[0]
    assert "100% of the largest" in found.warnings[0]


def test_pca_to_a_share_keeps_what_one_direction_explains_without_a_warning() -> None:
    rows = np.tile(directions(5, 1), (6, 1))
    found = reduce_pca80(rows)
    assert found.basis.shape == (64, 1)
    assert found.warnings == ()


def test_a_layer_names_the_features_that_shaped_it() -> None:
    rows = directions(7, 30)
    difference = np.zeros(30)
    difference[[4, 9, 2, 17]] = [0.5, -2.0, 1.0, -0.1]
    layer, warnings = layer_from_features(
        rows,
        FeatureContrast(difference, difference),
        2,
        stream=3,
        hook_point="blocks.2.hook_resid_post",
        sae="a",
        explanations={9: ("refusals", ("refusal",))},
    )
    assert warnings == ()
    assert [one.feature for one in layer.features] == [9, 2, 4, 17]
    assert layer.features[0].contrast == -2.0
    assert layer.features[0].weight == 2.0
    assert layer.features[0].explanation == "refusals"
    assert layer.features[1].explanation is None
    assert layer.basis.shape == (64, 2)
    weighted = rows[[9, 2, 4, 17]] * np.array([2.0, 1.0, 0.5, 0.1])[:, None]
    expected = np.linalg.svd(weighted)[2][:2].T
    assert projection_distance(layer.basis, expected) < 1e-5


def test_only_the_features_of_a_concept_are_chosen() -> None:
    difference = np.linspace(1, 0.1, 30)
    layer, _ = layer_from_features(
        directions(7, 30),
        FeatureContrast(difference, difference),
        2,
        stream=3,
        hook_point="blocks.2.hook_resid_post",
        sae="a",
        reducer="pca80",
        among=[20, 25, 29],
    )
    assert [one.feature for one in layer.features] == [20, 25]
