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
        rest = total - self._sum_by_feature(gained)
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = total / seen_of.sum(-1, keepdims=True)
            result: Floats = (self._sum_by_feature(gained * precision) + rest * chance) / total
        return result

    def _sum_so_far(self, values: Floats) -> Floats:
        """Running sums that begin anew with every feature, [..., n]."""
        sums = _running(values)
        before = np.repeat(self.starts[:-1], np.diff(self.starts))
        result: Floats = sums[..., 1:] - sums[..., before]
        return result

    def _sum_by_feature(self, values: Floats) -> Floats:
        result: Floats = np.diff(_running(values)[..., self.starts], axis=-1)
        return result


def _running(values: Floats) -> Floats:
    """Sums of the first 0, 1, 2 ... values, [..., n] -> [..., n + 1]."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums
