"""How many distinct features separate a concept: the yield that a candidate promises.

Shapes: T texts, F features, R resamples. Formulas are stated in docs/ranking.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safesail.ranking._design import PairDesign, Role
from safesail.ranking._sorted_scores import SortedScores

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

GOOD = 0.75
"""Average precision from which a feature counts as separating the concept."""
COPY = 0.9
"""Correlation of activations over the texts from which a feature is a copy of a better one."""
# A feature below this average precision reaches GOOD in hardly any resample.
_NEAR = 0.5
# Features whose resamples are computed together: bounds memory, not the result.
_BLOCK = 16


@dataclass(frozen=True)
class SeparatingFeatures:
    """Distinct features that separate one concept.

    Attributes:
        count: how many.
        resampled: how many under each resample of the pairs, [R].
    """

    count: int
    resampled: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the count: percentiles of the resamples, joined with the count."""
        low, high = np.quantile(self.resampled, [0.025, 0.975])
        return float(min(low, self.count)), float(max(high, self.count))


def separating_features(
    pooled: NDArray[np.float32], scores: SortedScores, role: Role, design: PairDesign
) -> SeparatingFeatures:
    """Count the features with an average precision of at least GOOD, copies once.

    Args:
        pooled: activation of each feature on each text, [T, F].
        scores: `pooled`, sorted.
        role: what texts and pairs are to the concept.
        design: what all candidates share.
    """
    # A feature that is silent on the rest of the positives can not do better than this.
    reached = (pooled[role.positive] > 0).mean(0)
    able = np.flatnonzero(reached + (1 - reached) * role.chance >= _NEAR)
    precision = scores.select(able).average_precision(role.positive * role.weight, role.weight)
    order = np.argsort(-precision, kind="stable")[: int((precision >= _NEAR).sum())]
    near, precision = able[order], precision[order]
    if not len(near):
        return SeparatingFeatures(0, np.zeros(len(design.draws)))
    original = originals(pooled[:, near])
    count = len(np.unique(original[precision >= GOOD]))
    weights = design.draws[:, design.cluster_of_texts]
    hits, seen = weights * (role.positive * role.weight), weights * role.weight
    # A group of copies counts once if any of them is good in the resample.
    best = np.zeros((len(weights), len(near)))
    for first in range(0, len(near), _BLOCK):
        block = near[first : first + _BLOCK]
        again = scores.select(block).average_precision(hits, seen)
        for place, values in enumerate(again.T, start=first):
            group = original[place]
            best[:, group] = np.maximum(best[:, group], values)
    return SeparatingFeatures(count, (best >= GOOD).sum(1).astype(float))


def originals(activations: Floats) -> Integers:
    """For each feature the place of the first one that it is a copy of; its own if of none.

    Args:
        activations: of features, better ones first, [T, features].

    Returns:
        [features]; only features that are no copies appear in it.
    """
    centred = activations - activations.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    product = np.outer(lengths, lengths)
    alike = (centred.T @ centred >= COPY * product) & (product > 0)
    found = np.arange(len(alike))
    kept: list[int] = []
    for place in range(len(alike)):
        same = [earlier for earlier in kept if alike[place, earlier]]
        if same:
            found[place] = same[0]
        else:
            kept.append(place)
    return found
