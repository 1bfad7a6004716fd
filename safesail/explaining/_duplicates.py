"""Near-duplicates among the features of an SAE, which need no explanation of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from safesail.tables import Context

LEAST_COSINE = 0.95
"""Of the decoder directions of near-duplicates."""

LEAST_OVERLAP = 0.4
"""Of the tokens that near-duplicates fire at."""

# Cosines of so many features with all others at once: bounds memory.
_BLOCK = 512


def find_duplicates(
    features: Sequence[int],
    directions: NDArray[np.floating],
    contexts: Mapping[int, Sequence[Context]],
) -> dict[int, int]:
    """Near-duplicates, each with the feature whose explanation it may inherit.

    Two features are near-duplicates when their decoder directions have a cosine of at least
    `LEAST_COSINE` and they fire at the same: the weighted Jaccard similarity (Ruzicka) of how
    their activation is shared out over token ids is at least `LEAST_OVERLAP`. The shares are
    those in the active windows of the explain split, each once, all levels alike: weighted by
    inverse sampling probability, five windows would stand for most of a feature's. (Windows
    themselves cannot be compared: each feature's are drawn on their own, so that even equal
    features share few of them.) How the limits were chosen: docs/choosing.md.

    Features are taken in the order given. One that is near an earlier representative becomes a
    near-duplicate of the first such one, any other a representative. So every near-duplicate is
    near its representative itself, and there are no chains.

    Args:
        features: indices in the SAE, each once, those to be explained first in front.
        directions: decoder direction of each, shape (features, d_out), of any length; a zero
            direction is near nothing.
        contexts: windows by feature; a feature without active ones is near nothing.

    Returns:
        By near-duplicate its representative, in the order of `features`.

    Raises:
        ValueError: `directions` has another number of rows, or a feature is there twice.
    """
    if len(directions) != len(features):
        raise ValueError(f"{len(features)} features, but {len(directions)} directions")
    if len(set(features)) < len(features):
        raise ValueError("a feature is among the features twice")
    neighbours = _neighbours(directions)
    # Only what has a neighbour is looked up: few features do, and contexts are long.
    concerned = {*neighbours, *(earlier for near in neighbours.values() for earlier in near)}
    shares = {place: _shares(contexts.get(features[place], ())) for place in concerned}
    representative: dict[int, int] = {}
    for place, earlier in neighbours.items():
        for candidate in earlier:
            near = candidate not in representative
            if near and _overlap(shares[place], shares[candidate]) >= LEAST_OVERLAP:
                representative[place] = candidate
                break
    return {features[place]: features[of] for place, of in representative.items()}


def _neighbours(directions: NDArray[np.floating]) -> dict[int, list[int]]:
    """By place the earlier places whose directions are near, both ascending."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    found: dict[int, list[int]] = defaultdict(list)
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[: start + _BLOCK].T
        for row, column in np.argwhere(cosines >= LEAST_COSINE).tolist():
            if column < start + row:
                found[start + row].append(column)
    return dict(found)


def _shares(contexts: Iterable[Context]) -> dict[int, float]:
    """Share of the activation in the windows to explain with at each token id."""
    windows = {
        (context.document, context.start, tuple(context.token_ids)): context
        for context in contexts
        if context.split == "explain" and context.kind == "active"
    }
    mass: dict[int, float] = defaultdict(float)
    for context in windows.values():
        for token, activation in zip(context.token_ids, context.activations, strict=True):
            if activation > 0:
                mass[token] += activation
    total = sum(mass.values())
    return {token: value / total for token, value in mass.items()}


def _overlap(first: Mapping[int, float], second: Mapping[int, float]) -> float:
    """Weighted Jaccard similarity of two distributions; 0 where either is empty."""
    if not first or not second:
        return 0.0
    common = sum(min(share, second[token]) for token, share in first.items() if token in second)
    return common / (2 - common)
