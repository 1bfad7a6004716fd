"""Subspaces found without an SAE, and controls: what the SAE route is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._contrast import check_sides
from safesail.alignment._reduce import Reduction, principal_directions, reduce_weighted
from safesail.errors import AlignmentError

Values = NDArray[np.floating[Any]]


def raw_difference_pca(
    aligned: Values, unaligned: Values, rank: int, *, paired: bool, seed: int = 0
) -> Reduction:
    """Uncentred PCA of differences of hidden states, of pairs or of texts paired at random.

    Args:
        aligned: [texts, d_model], hidden states pooled over each text.
        unaligned: the same of unaligned texts.
        rank: number of directions.
        paired: row i of both is one pair; otherwise texts are paired at random.
        seed: of the random pairs.

    Raises:
        AlignmentError: both sets are the same or too small.
    """
    check_sides(aligned, unaligned, paired=paired)
    basis, spectrum, warnings = principal_directions(
        differences(aligned, unaligned, paired=paired, seed=seed), rank
    )
    return Reduction(basis, spectrum, np.ones(len(basis.T)), warnings)


def covariance_difference(aligned: Values, unaligned: Values, rank: int) -> Reduction:
    """The directions in which covariances and means of both sides differ most.

    The eigenvectors of largest eigenvalue of |C_a - C_u| + δδᵀ, where C is a side's covariance, δ
    the difference of means, and |M| the matrix of M's eigenvectors and absolute eigenvalues:
    variance that falls counts as variance that rises, and neither takes from the shift of the
    mean. A route of our own: the SAILS paper is not reported to name it.

    Args:
        aligned: [texts, d_model], hidden states pooled over each text.
        unaligned: the same of unaligned texts.
        rank: number of directions.

    Returns:
        A reduction whose spectrum holds square roots of eigenvalues, in the units of hidden states.

    Raises:
        AlignmentError: both sets are the same or too small.
    """
    check_sides(aligned, unaligned, paired=False)
    first, second = aligned.astype(np.float64), unaligned.astype(np.float64)
    mean = first.mean(axis=0) - second.mean(axis=0)
    rows = np.concatenate(
        [(side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (first, second)]
    )
    # All happens in the span of the texts; where they are few, that is the smaller problem.
    few = len(rows) + 1 < rows.shape[1]
    span = np.linalg.qr(np.concatenate([rows, mean[None]]).T)[0] if few else np.eye(len(mean))
    rows, mean = rows @ span, mean @ span
    one, two = rows[: len(first)], rows[len(first) :]
    values, vectors = np.linalg.eigh(one.T @ one - two.T @ two)
    # The rows' Gram matrix is |C_a - C_u| + δδᵀ.
    moved = np.concatenate([np.sqrt(np.abs(values))[:, None] * vectors.T, mean[None]])
    basis, spectrum, warnings = principal_directions(moved, rank)
    basis = (span @ basis).astype(np.float32)
    return Reduction(basis, spectrum, np.ones(basis.shape[1]), warnings)


def mean_difference(aligned: Values, unaligned: Values) -> Reduction:
    """The single difference of means: rank one, whatever rank the truth has.

    Raises:
        AlignmentError: both sets are the same or too small.
    """
    check_sides(aligned, unaligned, paired=False)
    mean = aligned.mean(axis=0, dtype=np.float64) - unaligned.mean(axis=0, dtype=np.float64)
    basis, spectrum, warnings = principal_directions(mean[None], 1)
    return Reduction(basis, spectrum, np.ones(1), warnings)


def random_basis(d_model: int, rank: int, *, seed: int) -> Reduction:
    """A random subspace, uniform over all of that rank (Haar: QR of a Gaussian matrix)."""
    gaussian = np.random.default_rng(seed).standard_normal((d_model, rank))
    basis = np.linalg.qr(gaussian)[0].astype(np.float32)
    return Reduction(basis, np.ones(rank, dtype=np.float32), np.ones(rank))


def random_features(
    decoder: Values, rank: int, *, count: int, seed: int
) -> tuple[Reduction, NDArray[np.int64]]:
    """Directions of features drawn at random, equally weighted, reduced as the SAE route is.

    Args:
        decoder: [features, d_model].
        rank: number of directions.
        count: features to draw, as many as the route that this is held against has.
        seed: of the draw.

    Returns:
        The reduction, and the features drawn.

    Raises:
        AlignmentError: the SAE has fewer features.
    """
    if count > len(decoder):
        raise AlignmentError(f"{count} random features of an SAE that has {len(decoder)}")
    drawn = np.sort(np.random.default_rng(seed).choice(len(decoder), count, replace=False))
    return reduce_weighted(decoder[drawn], np.ones(count), rank), drawn


def shuffled_labels(
    aligned: Values, unaligned: Values, *, paired: bool, seed: int
) -> tuple[Values, Values]:
    """The same texts with labels at random: in pairs the sides are swapped by a coin.

    Any route on them is a control that keeps all but what aligned means.
    """
    generator = np.random.default_rng(seed)
    if paired:
        swap = generator.random(len(aligned)) < 0.5
        first = np.where(swap[:, None], unaligned, aligned)
        return first, np.where(swap[:, None], aligned, unaligned)
    both = generator.permutation(np.concatenate([aligned, unaligned]))
    return both[: len(aligned)], both[len(aligned) :]


def differences(aligned: Values, unaligned: Values, *, paired: bool, seed: int = 0) -> Values:
    """Aligned less unaligned, of pairs or of texts paired at random, [pairs, columns]."""
    if paired:
        return aligned - unaligned
    generator = np.random.default_rng(seed)
    count = min(len(aligned), len(unaligned))
    first = generator.permutation(len(aligned))[:count]
    second = generator.permutation(len(unaligned))[:count]
    return aligned[first] - unaligned[second]


def projection_distance(first: Values, second: Values) -> float:
    """‖P₁ - P₂‖_F of the projections on two bases [d_model, r] with orthonormal columns.

    0 where the spans are equal, √(r₁ + r₂) where they are orthogonal. Computed as
    √(‖(I - P₂)U₁‖² + ‖(I - P₁)U₂‖²), which loses no digits where the spans are close.
    """
    one, two = first.astype(np.float64), second.astype(np.float64)
    shared = one.T @ two
    return float(np.hypot(np.linalg.norm(one - two @ shared.T), np.linalg.norm(two - one @ shared)))
