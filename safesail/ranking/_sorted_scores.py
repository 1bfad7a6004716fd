"""Average precision of many features at once, from their few non-zero activations.

Shapes: T texts, F features, n non-zero activations of all features together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]
Weights = Floats | Integers | Bools

# Features whose activations are sorted together: bounds memory, not the result.
_BLOCK = 4096


@dataclass(frozen=True)
class SortedScores:
    """Activations of features on texts, sorted once so that many subsets can be judged.

    A feature is silent on most texts, and those share the last place: only the others are kept,
    feature by feature, from the highest activation down.

    Attributes:
        texts: text of each kept activation, [n].
        last: for each, the last place of equal activation in the same feature, [n].
        starts: first place of each feature, and the end of the last one, [F + 1].
    """

    texts: Integers
    last: Integers
    starts: Integers

    @classmethod
    def of(cls, scores: Floats) -> SortedScores:
        """Sort activations [T, F]; what is not above zero counts as silent."""
        texts, last, counts, held = [], [], [], 0
        for first in range(0, scores.shape[1], _BLOCK):
            block = scores[:, first : first + _BLOCK].T
            features, found = np.nonzero(block > 0)
            values = block[features, found]
            order = np.lexsort((-values, features))
            ends = np.ones(len(order), dtype=bool)
            ends[:-1] = (np.diff(values[order]) != 0) | (np.diff(features) != 0)
            # The nearest end at or after each place: a running minimum from the bottom.
            places = np.where(ends, np.arange(len(order)), len(order))
            texts.append(found[order].astype(np.int32))
            last.append(np.minimum.accumulate(places[::-1])[::-1] + held)
            counts.append(np.bincount(features, minlength=len(block)))
            held += len(order)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        return cls(np.concatenate(texts), np.concatenate(last), starts)

    def select(self, features: Integers) -> SortedScores:
        """The same for some of the features."""
        counts = np.diff(self.starts)[features]
        starts = np.concatenate([[0], np.cumsum(counts)])
        moved = np.repeat(self.starts[features] - starts[:-1], counts)
        places = np.arange(starts[-1]) + moved
        return SortedScores(self.texts[places], self.last[places] - moved, starts)

    def average_precision(self, positive: Weights, used: Weights) -> Floats:
        """Average precision of every feature as a detector of the positive texts.

        Σ over thresholds of (recall step) x precision, ties as one threshold, as scikit-learn's
        `average_precision_score`.

        Args:
            positive: texts that carry the concept, or how often each counts, [..., T].
            used: texts that count, or how often, [..., T]; a positive counts no more than that.

        Returns:
            Average precision, [..., F]; NaN where no positive text counts.
        """
        seen_of = used.astype(np.float64)
        hits_of = np.minimum(positive.astype(np.float64), seen_of)
        gained = hits_of[..., self.texts]
        hits, passed = self._sum_so_far(gained), self._sum_so_far(seen_of[..., self.texts])
        precision = hits[..., self.last] / np.maximum(passed[..., self.last], 1e-12)
        # The silent texts come last, all at one threshold, where everything is retrieved.
        total = hits_of.sum(-1, keepdims=True)
        rest = total - self._last_of_feature(hits)
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = total / seen_of.sum(-1, keepdims=True)
            result: Floats = (self._sum_by_feature(gained * precision) + rest * chance) / total
        return result

    def highest(self, places: int) -> HighestTexts:
        """The texts that each feature is most active on."""
        counts = np.diff(self.starts)
        kept = np.minimum(counts, places)
        features = np.repeat(np.arange(len(counts)), kept)
        firsts = np.cumsum(kept) - kept
        chosen = np.arange(len(features)) + (self.starts[:-1] - firsts)[features]
        return HighestTexts(features, self.texts[chosen], counts <= places)

    def _sum_so_far(self, values: Floats) -> Floats:
        """Running sums that begin anew with every feature, [..., n]."""
        sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
        np.cumsum(values, axis=-1, out=sums[..., 1:])
        if len(self.starts) > 2:
            before = np.repeat(self.starts[:-1], np.diff(self.starts))
            sums[..., 1:] -= sums[..., before]
        return sums[..., 1:]

    def _sum_by_feature(self, values: Floats) -> Floats:
        held = np.diff(self.starts) > 0  # an empty stretch would be given its neighbour's value
        result = np.zeros((*values.shape[:-1], len(held)))
        if held.any():
            result[..., held] = np.add.reduceat(values, self.starts[:-1][held], axis=-1)
        return result

    def _last_of_feature(self, values: Floats) -> Floats:
        """Value at the last place of each feature, 0 where it has none, [..., F]."""
        held = np.diff(self.starts) > 0
        result = np.zeros((*values.shape[:-1], len(held)))
        result[..., held] = values[..., self.starts[1:][held] - 1]
        return result


@dataclass(frozen=True)
class HighestTexts:
    """The first few texts of each feature: enough to tell that most features are no detectors.

    Attributes:
        features: feature of each place, [n].
        texts: text of each place, [n].
        all: whether these are all texts that the feature fires on, [F].
    """

    features: Integers
    texts: Integers
    all: Bools

    def bound(self, positive: Weights, used: Weights) -> Floats:
        """No feature's average precision is larger than this, [F].

        Positives among these texts are retrieved at a precision of at most 1; later ones after all
        negatives that are among them, or, where a feature fires on no others, with all the rest.

        Args:
            positive: texts that carry the concept, or how often each counts, [T].
            used: texts that count, or how often, [T]; a positive counts no more than that.
        """
        width = len(self.all)
        total, everything = float(positive.sum()), float(used.sum())
        seen = np.bincount(self.features, used[self.texts], width)
        hits = np.bincount(self.features, positive[self.texts], width)
        after = np.where(self.all, total / everything, total / (total + seen - hits))
        result: Floats = (hits + (total - hits) * after) / total
        return result
