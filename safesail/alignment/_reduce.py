"""How directions of features become an orthonormal basis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._contrast import FeatureContrast
from safesail.alignment._subspace import LayerSubspace, SubspaceFeature
from safesail.errors import AlignmentError

Reducer = Literal["weighted", "pca80"]

FEATURES_PER_RANK = 4
"""Features that `weighted` looks at, for each direction that it keeps."""
VARIANCE = 0.8
"""Share of the variance that `pca80` keeps."""
# Decoders are single precision: what is smaller than this share of the largest is rounding.
_RANK_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Reduction:
    """An orthonormal basis and where it was cut.

    Attributes:
        basis: float32 [d_model, r], orthonormal columns, the strongest direction first.
        spectrum: float32, singular values of the matrix that was reduced, descending.
        weights: float64 [directions], with which each direction went in.
        warnings: what a user should know of the cut, one line each.
    """

    basis: NDArray[np.float32]
    spectrum: NDArray[np.float32]
    weights: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def reduce_weighted(
    directions: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]], rank: int
) -> Reduction:
    """Uncentred PCA of weighted directions, cut at a fixed rank.

    The basis holds the first left singular vectors of the matrix with columns w_i d_i: the span
    that keeps most of Σ w_i² ‖d_i‖². The rank falls where directions are collinear. Our choice.

    Args:
        directions: [directions, d_model], decoder rows as they are: an activation's change times
            its row is what changes in the stream.
        weights: [directions], not negative; |difference| of mean activations.
        rank: number of directions to keep.

    Raises:
        AlignmentError: fewer directions of positive weight than rank.
    """
    sizes: NDArray[np.float64] = weights.astype(np.float64)
    if np.count_nonzero(weights) < rank:
        raise AlignmentError(
            f"{np.count_nonzero(weights)} features differ between the sets, fewer than rank "
            f"{rank}: lower the rank or give more texts"
        )
    basis, spectrum, warnings = principal_directions(directions * sizes[:, None], rank)
    return Reduction(basis, spectrum, sizes, warnings)


def reduce_pca80(directions: NDArray[np.floating[Any]], share: float = VARIANCE) -> Reduction:
    """PCA of unit directions to a share of their variance, then QR, as readers report of SAILS.

    Uncentred: the report does not say, and centring never helped in trials. Directions that are
    nearly orthogonal have a flat spectrum, of which any cut by variance drops true directions.

    Args:
        directions: [directions, d_model].
        share: of the sum of squared singular values to keep.
    """
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    units = np.divide(directions, norms, out=np.zeros(directions.shape), where=norms > 0)
    singular = np.linalg.svd(units, compute_uv=False)
    kept = np.cumsum(singular**2) / np.sum(singular**2)
    # 0.8 of ten equal ones is eight, whatever the last bits of the sum say.
    rank = int(np.searchsorted(kept, share - 1e-9) + 1)
    basis, spectrum, warnings = principal_directions(units, rank)
    independent = _numerical_rank(singular)
    if rank < independent:
        warnings = (
            *warnings,
            f"PCA to {share:.0%} of the variance keeps {rank} of {independent} independent "
            f"directions and drops {independent - rank}: the smallest singular value is "
            f"{singular[independent - 1] / singular[0]:.0%} of the largest, so they are not noise; "
            "the reducer `weighted` keeps a fixed rank",
        )
    orthonormal = np.linalg.qr(basis.astype(np.float64))[0]
    return Reduction(orthonormal.astype(np.float32), spectrum, np.ones(len(directions)), warnings)


def principal_directions(
    rows: NDArray[np.floating[Any]], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
    """The first right singular vectors of rows, as columns; all singular values; warnings.

    Raises:
        AlignmentError: all rows are zero.
    """
    matrix = rows.astype(np.float64)
    if matrix.shape[0] > matrix.shape[1]:
        # Of many rows only the triangle of their QR matters: same values, same directions.
        matrix = np.asarray(np.linalg.qr(matrix, mode="r"))
    _, singular, directions = np.linalg.svd(matrix, full_matrices=False)
    independent = _numerical_rank(singular)
    if independent == 0:
        raise AlignmentError("all directions are zero: the sets do not differ")
    warnings: tuple[str, ...] = ()
    if independent < rank:
        warnings = (
            f"rank {independent} instead of {rank}: the directions span no more, others are "
            "collinear with them",
        )
    kept = directions[: min(rank, independent)].T
    return kept.astype(np.float32), singular.astype(np.float32), warnings


def choose_features(
    contrast: FeatureContrast,
    rank: int,
    *,
    reducer: Reducer = "weighted",
    among: Sequence[int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The features that a reducer is given, first the one that differs most.

    Args:
        contrast: of all features.
        rank: number of directions.
        reducer: `weighted` takes four times as many features, `pca80` as many.
        among: features to choose from; all by default.

    Returns:
        int64 [chosen] features, fewer where fewer differ, and float64 [chosen] the absolute
        difference of their means.
    """
    order = contrast.order()
    if among is not None:
        order = order[np.isin(order, np.asarray(among, dtype=np.int64))]
    chosen = order[: rank * FEATURES_PER_RANK] if reducer == "weighted" else order[:rank]
    return chosen, np.abs(contrast.difference[chosen])


def layer_from_features(
    decoder: NDArray[np.floating[Any]],
    contrast: FeatureContrast,
    rank: int,
    *,
    stream: int,
    hook_point: str,
    sae: str,
    reducer: Reducer = "weighted",
    among: Sequence[int] | None = None,
    explanations: Mapping[int, tuple[str, tuple[str, ...]]] | None = None,
    writers_only: bool = False,
) -> tuple[LayerSubspace, tuple[str, ...]]:
    """The SAE route: choose features by contrast and reduce their decoder directions.

    Args:
        decoder: [features, d_model], the SAE's decoder rows.
        contrast: of its features.
        rank: number of directions; `pca80` reduces so many features, to fewer directions.
        stream: state of the residual stream that the SAE reads or adds to.
        hook_point: the SAE's site.
        sae: its name.
        reducer: how directions become a basis.
        among: features to choose from, such as those that explanations give to a concept; all by
            default.
        explanations: explanation and concepts by feature.
        writers_only: the site is one block's output.

    Returns:
        The layer, and warnings of one line each.

    Raises:
        AlignmentError: fewer features than rank.
    """
    chosen, size = choose_features(contrast, rank, reducer=reducer, among=among)
    if len(chosen) < rank:
        raise AlignmentError(
            f"{sae or hook_point}: {len(chosen)} features to choose from, fewer than rank {rank}: "
            "lower the rank, choose more concepts or give more texts"
        )
    if reducer == "weighted":
        reduction = reduce_weighted(decoder[chosen], size, rank)
    else:
        reduction = reduce_pca80(decoder[chosen])
    known = explanations or {}
    features = tuple(
        SubspaceFeature(
            feature=int(feature),
            contrast=float(contrast.value[feature]),
            weight=float(weight),
            explanation=known[feature][0] if feature in known else None,
            concepts=tuple(known[feature][1]) if feature in known else (),
        )
        for feature, weight in zip(chosen.tolist(), reduction.weights, strict=True)
    )
    layer = LayerSubspace(
        stream, hook_point, sae, reduction.basis, features, reduction.spectrum, writers_only
    )
    return layer, reduction.warnings


def _numerical_rank(singular: NDArray[np.floating[Any]]) -> int:
    return int(np.count_nonzero(singular > _RANK_TOLERANCE * singular[0])) if singular[0] else 0
