"""Every route to a layer's subspace, by name: the SAE's, the direct ones, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._contrast import Contrast, contrast_features
from safesail.alignment._direct import (
    covariance_difference,
    mean_difference,
    random_basis,
    random_features,
    raw_difference_pca,
    shuffled_labels,
)
from safesail.alignment._facts import ContrastTexts
from safesail.alignment._names import ROUTES, Route
from safesail.alignment._reduce import (
    FEATURES_PER_RANK,
    Reducer,
    Reduction,
    layer_from_features,
)
from safesail.alignment._subspace import LayerSubspace, SubspaceFeature


def layer_by_route(
    route: Route,
    texts: ContrastTexts,
    decoder: NDArray[np.floating[Any]],
    rank: int,
    *,
    stream: int,
    hook_point: str,
    sae: str,
    contrast: Contrast = "abs",
    reducer: Reducer = "weighted",
    among: Sequence[int] | None = None,
    explanations: Mapping[int, tuple[str, tuple[str, ...]]] | None = None,
    writers_only: bool = False,
    seed: int = 0,
) -> tuple[LayerSubspace, tuple[str, ...]]:
    """One layer's subspace by a route's name.

    `shuffled_labels` is the SAE route on texts whose labels were shuffled; `mean_difference` has
    rank one whatever was asked for. Layers of direct routes and of `random` name no SAE.

    Args:
        route: how the basis is found.
        texts: both sides at the SAE's site.
        decoder: [features, d_model], the SAE's decoder rows.
        rank: number of directions.
        stream: state of the residual stream.
        hook_point: the SAE's site.
        sae: its name.
        contrast: by which the SAE route chooses features.
        reducer: how directions become a basis, in the SAE route and with shuffled labels.
        among: of the SAE route and with shuffled labels, features to choose from; all by default.
        explanations: explanation and concepts by feature.
        writers_only: the site is one block's output.
        seed: of whatever is random.

    Returns:
        The layer, and warnings of one line each.

    Raises:
        AlignmentError: both sides are the same or too small, or too few features differ.
        ValueError: no such route.
    """
    if route in ("sae", "shuffled_labels"):
        sides = texts.aligned_activations, texts.unaligned_activations
        if route == "shuffled_labels":
            sides = shuffled_labels(*sides, paired=texts.paired, seed=seed)
        return layer_from_features(
            decoder,
            contrast_features(*sides, contrast=contrast, paired=texts.paired),
            rank,
            stream=stream,
            hook_point=hook_point,
            sae=sae,
            reducer=reducer,
            among=among,
            explanations=explanations,
            writers_only=writers_only,
        )
    features: tuple[SubspaceFeature, ...] = ()
    if route == "random_features":
        count = min(FEATURES_PER_RANK * rank, len(decoder))
        reduction, drawn = random_features(decoder, rank, count=count, seed=seed)
        known = explanations or {}
        features = tuple(
            SubspaceFeature(feature, 0.0, 1.0, *known.get(feature, (None, ())))
            for feature in drawn.tolist()
        )
    else:
        reduction = _without_features(route, texts, rank, seed)
    layer = LayerSubspace(
        stream,
        hook_point,
        sae if features else "",
        reduction.basis,
        features,
        reduction.spectrum,
        writers_only,
    )
    return layer, reduction.warnings


def _without_features(route: str, texts: ContrastTexts, rank: int, seed: int) -> Reduction:
    aligned, unaligned = texts.aligned, texts.unaligned
    if route == "raw_difference_pca":
        return raw_difference_pca(aligned, unaligned, rank, paired=texts.paired, seed=seed)
    if route == "covariance_difference":
        return covariance_difference(aligned, unaligned, rank)
    if route == "mean_difference":
        return mean_difference(aligned, unaligned)
    if route == "random":
        return random_basis(aligned.shape[1], rank, seed=seed)
    raise ValueError(f"no route {route!r}: {', '.join(ROUTES)}")
