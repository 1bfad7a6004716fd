"""Routes without an SAE: what each must find, and what each cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safesail.alignment import (
    covariance_difference,
    mean_difference,
    projection_distance,
    random_basis,
    random_features,
    raw_difference_pca,
    shuffled_labels,
)
from safesail.errors import AlignmentError

RANK, DIMENSIONS = 4, 24


@dataclass(frozen=True)
class Data:
    aligned: NDArray[np.float64]
    unaligned: NDArray[np.float64]
    truth: NDArray[np.float64]


def data(texts: int, *, same: bool, seed: int = 0) -> Data:
    """Sides that differ in RANK directions, by mean and variance, above a common background."""
    generator = np.random.default_rng(seed)
    truth = np.linalg.qr(generator.standard_normal((DIMENSIONS, RANK)))[0]
    background = 2.0 * generator.standard_normal((2, texts, DIMENSIONS))
    if same:
        background[1] = background[0]
    aligned = background[0] + (1 + 3 * generator.standard_normal((texts, RANK))) @ truth.T
    return Data(aligned, background[1], truth)


def test_minimal_pairs_give_the_span_exactly() -> None:
    found = data(200, same=True)
    basis = raw_difference_pca(found.aligned, found.unaligned, RANK, paired=True).basis
    assert projection_distance(basis, found.truth) < 1e-4


def test_without_pairs_the_background_takes_the_basis_and_covariances_do_not() -> None:
    found = data(20_000, same=False)
    # A background that is stronger in one direction than what differs anywhere.
    extra = np.random.default_rng(1).standard_normal((2, 20_000, 1))
    loud = np.linalg.qr(np.random.default_rng(2).standard_normal((DIMENSIONS, 1)))[0].T
    aligned, unaligned = found.aligned + 9 * extra[0] @ loud, found.unaligned + 9 * extra[1] @ loud
    raw = raw_difference_pca(aligned, unaligned, RANK, paired=False).basis
    change = covariance_difference(aligned, unaligned, RANK).basis
    assert projection_distance(raw, found.truth) > 1.0
    assert projection_distance(change, found.truth) < 0.5


def test_the_covariance_difference_sees_means_and_variances_that_rise_or_fall() -> None:
    generator = np.random.default_rng(3)
    values = generator.standard_normal((2, 50_000, 6))
    values[0, :, 0] += 3.0
    values[0, :, 1] *= 2.0
    values[1, :, 2] *= 1.8  # varies less on the aligned side
    found = covariance_difference(values[0], values[1], 3)
    assert projection_distance(found.basis, np.eye(6)[:, :3]) < 0.1
    # In the units of hidden states: the mean's shift, then sqrt(2² - 1), sqrt(1.8² - 1).
    np.testing.assert_allclose(found.spectrum[:3], [3, 3**0.5, (1.8**2 - 1) ** 0.5], rtol=0.05)


def test_a_shift_of_the_mean_is_not_taken_off_by_variance_that_falls_along_it() -> None:
    generator = np.random.default_rng(4)
    values = generator.standard_normal((2, 20_000, 5))
    values[1, :, 0] *= 3.0
    values[0, :, 0] += 8**0.5  # its square is what the variance loses
    found = covariance_difference(values[0], values[1], 1)
    assert abs(found.basis[0, 0]) > 0.99


def test_sides_that_differ_in_variance_alone_are_enough() -> None:
    generator = np.random.default_rng(5)
    aligned = generator.standard_normal((2000, 5)) * [3, 1, 1, 1, 1]
    aligned = np.concatenate([aligned, -aligned])
    unaligned = generator.standard_normal((2000, 5))
    unaligned = np.concatenate([unaligned, -unaligned])
    basis = covariance_difference(aligned, unaligned, 2).basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-6)
    assert abs(basis[0, 0]) > 0.99


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_one_direction_cannot_span_more_whatever_it_is(seed: int, rank: int) -> None:
    truth = random_basis(DIMENSIONS, rank, seed=seed).basis
    inside = truth @ np.random.default_rng(seed).standard_normal(rank)
    generator = np.random.default_rng(seed + 1)
    values = generator.standard_normal((2, 50, DIMENSIONS))
    values[1] += values[0].mean(0) - values[1].mean(0) + inside  # means differ inside the span
    found = mean_difference(values[1], values[0])
    assert projection_distance(found.basis, truth) == pytest.approx((rank - 1) ** 0.5, abs=1e-3)


def test_random_bases_are_orthonormal_seeded_and_uniform() -> None:
    basis = random_basis(DIMENSIONS, RANK, seed=1).basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(RANK), atol=1e-6)
    np.testing.assert_array_equal(basis, random_basis(DIMENSIONS, RANK, seed=1).basis)
    fixed = np.eye(DIMENSIONS)[:, :RANK]
    squared = [
        projection_distance(random_basis(DIMENSIONS, RANK, seed=seed).basis, fixed) ** 2
        for seed in range(200)
    ]
    # E‖U₁ᵀU₂‖² = r²/d for a uniform subspace.
    assert np.mean(squared) == pytest.approx(2 * RANK * (1 - RANK / DIMENSIONS), rel=0.03)


def test_random_features_are_drawn_without_replacement() -> None:
    decoder = np.random.default_rng(1).standard_normal((40, DIMENSIONS))
    reduction, drawn = random_features(decoder, RANK, count=16, seed=3)
    assert len(set(drawn.tolist())) == 16
    assert reduction.basis.shape == (DIMENSIONS, RANK)
    rows = np.linalg.qr(decoder[drawn].T)[0]
    assert np.linalg.norm(rows.T @ reduction.basis) ** 2 == pytest.approx(RANK, abs=1e-4)
    with pytest.raises(AlignmentError, match="41 random features of an SAE that has 40"):
        random_features(decoder, RANK, count=41, seed=3)


def test_shuffled_labels_keep_the_texts_and_lose_the_difference() -> None:
    found = data(400, same=False, seed=6)
    aligned, unaligned = found.aligned + 5, found.unaligned
    whole = np.sort(np.concatenate([aligned, unaligned]), axis=0)
    for paired in (False, True):
        one, two = shuffled_labels(aligned, unaligned, paired=paired, seed=1)
        np.testing.assert_array_equal(np.sort(np.concatenate([one, two]), axis=0), whole)
        assert np.abs(one.mean(0) - two.mean(0)).max() < 1.5
        if paired:
            both = np.stack([one, two])
            assert (np.abs(both - aligned).min(axis=0) < 1e-12).all()


def test_identical_sides_are_refused() -> None:
    aligned = data(20, same=False).aligned
    for route in (covariance_difference, lambda a, u, r: raw_difference_pca(a, u, r, paired=True)):
        with pytest.raises(AlignmentError, match="the same to the model"):
            route(aligned, aligned, RANK)


def test_fewer_texts_than_dimensions_give_the_same_basis_as_the_whole_matrix() -> None:
    generator = np.random.default_rng(8)
    aligned = generator.standard_normal((9, 40)) + generator.standard_normal(40)
    unaligned = generator.standard_normal((8, 40))
    found = covariance_difference(aligned, unaligned, RANK).basis
    mean = aligned.mean(axis=0) - unaligned.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(aligned.T) - np.cov(unaligned.T))
    change = (vectors * np.abs(values)) @ vectors.T + np.outer(mean, mean)
    expected = np.linalg.eigh(change)[1][:, -RANK:]
    assert projection_distance(found, expected) < 1e-5
