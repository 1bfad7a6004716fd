"""How many distinct features separate a concept: the yield that a candidate promises.

Shapes: T texts, F features, R resamples. Formulas are stated in docs/ranking.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safesail.ranking._design import PairDesign, Role, weigh
from safesail.ranking._separation import LEAST_CLUSTERS
from safesail.ranking._sorted_scores import HighestTexts, SortedScores

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]

GOOD = 0.75
"""Average precision from which a feature counts as separating the concept."""
COPY = 0.9
"""Correlation of activations over the texts from which a feature is a copy of a better one."""
# A feature below this average precision reaches GOOD in hardly any resample.
_NEAR = 0.5
# So many texts for each that carries the concept tell that most features are no detectors of it.
_PLACES = 2
# Features whose resamples are computed together: bounds memory, not the result.
_BLOCK = 16


@dataclass(frozen=True)
class SeparatingFeatures:
    """Distinct features that separate one concept.

    Attributes:
        count: how many, less those by chance.
        by_chance: mean number with the sides of the pairs swapped at random.
        resampled: `count` under each resample of the pairs, [R].
        evidence: clusters of pairs.
    """

    count: int
    by_chance: float
    resampled: Floats
    evidence: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the count; NaN where there are fewer than four clusters."""
        if self.evidence < 2 * LEAST_CLUSTERS:
            return float("nan"), float("nan")
        return count_interval(self.count, self.resampled)


def separating_features(
    pooled: NDArray[np.float32], scores: SortedScores, role: Role, design: PairDesign
) -> SeparatingFeatures:
    """Count the features with an average precision of at least GOOD, copies once.

    What as many features would reach by chance is taken off, rounded: the mean count with the sides
    of the pairs swapped at random.

    Args:
        pooled: activation of each feature on each text, [T, F].
        scores: `pooled`, sorted.
        role: what texts and pairs are to the concept.
        design: what all candidates share.
    """
    highest = scores.highest(_PLACES * int(role.positive.sum()))
    swapped = [_reaching(GOOD, scores, highest, *one)[0] for one in _swapped(role, design)]
    distinct = [len(np.unique(originals(pooled[:, found]))) for found in swapped]
    by_chance = float(np.mean(distinct)) if distinct else 0.0
    near, precision = _reaching(_NEAR, scores, highest, role.positive, role.weight)
    if not len(near):
        return SeparatingFeatures(0, by_chance, np.zeros(len(design.draws)), role.evidence)
    original = originals(pooled[:, near])
    found = len(np.unique(original[precision >= GOOD]))
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
    counts = np.append((best >= GOOD).sum(1), found) - round(by_chance)
    *resampled, count = np.maximum(counts, 0)
    return SeparatingFeatures(int(count), by_chance, np.array(resampled, float), role.evidence)


def centred(count: float, resampled: Floats) -> Floats:
    """Resampled counts, moved by a whole number so that their mean is the count's.

    A resample adds its own noise to that of the sample, and lets features just below GOOD cross it:
    the more of them an SAE has, the further its resamples would else run ahead of it.
    """
    result: Floats = np.maximum(resampled - round(float(resampled.mean()) - count), 0)
    return result


def count_interval(count: float, resampled: Floats) -> tuple[float, float]:
    """95 % interval of a count: the centred resamples' percentiles, joined with the basic interval.

    The latter takes what resamples add to the count for what the sample added to the truth.
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    least, most = np.quantile(centred(count, resampled), [0.025, 0.975])
    return (
        float(max(0, min(least, count, 2 * count - high))),
        float(max(most, count, 2 * count - low)),
    )


def _reaching(
    level: float, scores: SortedScores, highest: HighestTexts, positive: Bools, weight: Floats
) -> tuple[Integers, Floats]:
    """Features with an average precision of at least `level`, best first, and that precision."""
    if weight[positive].sum() >= level * weight.sum():  # without negatives nothing is told apart
        return np.array([], dtype=np.int64), np.array([])
    carries = positive * weight
    able = np.flatnonzero(highest.bound(carries, weight) >= level)
    precision = scores.select(able).average_precision(carries, weight)
    order = np.argsort(-precision, kind="stable")[: int((precision >= level).sum())]
    return able[order], precision[order]


def _swapped(role: Role, design: PairDesign) -> Iterator[tuple[Bools, Floats]]:
    """Positives and weights of the texts with the sides of some clusters exchanged."""
    for swap in design.swaps:
        exchanged = swap[design.cluster_of_texts]
        positive = np.where(exchanged, role.twin, role.positive)
        twin = np.where(exchanged, role.positive, role.twin)
        if positive.any():
            yield positive, weigh(positive, twin, role.other)


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
