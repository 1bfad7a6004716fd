"""Statistics of the ranking, vectorised over features.

Shapes: P pairs, T texts, F features. Formulas are stated in docs/ranking.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom, false_discovery_control, norm

from safesail.concepts import ContrastPair

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]

# The fewest fair coins whose all showing heads has a probability below 0.05.
LEAST_DISCORDANT = 5


def share_of_pairs(wins: Integers, pairs: int) -> tuple[Floats, Floats, Floats]:
    """f, the share of pairs a feature distinguishes, with its 95 % Wilson interval.

    Args:
        wins: pairs that each feature distinguishes, [F].
        pairs: number of pairs, at least 1.

    Returns:
        f, lower and upper end, each [F]. (Wilson 1927, score interval of a proportion.)
    """
    f = wins / pairs
    z2 = norm.ppf(0.975) ** 2
    centre = (f + z2 / (2 * pairs)) / (1 + z2 / pairs)
    half = np.sqrt(z2) * np.sqrt(f * (1 - f) / pairs + z2 / (4 * pairs**2)) / (1 + z2 / pairs)
    return f, np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def q_values(wins: Integers, losses: Integers) -> Floats:
    """Adjusted p of each feature against the null that sides may be swapped.

    Under the null a pair that a feature tells apart either way does so by a fair coin: the exact
    one-sided binomial test on discordant pairs (the sign test), then Benjamini-Hochberg.

    Features with too few discordant pairs to reach p = 0.05 even if they won them all are left out
    of the adjustment and get q = 1. This costs no validity, as the number of discordant pairs says
    nothing of their direction (independent filtering; Bourgon, Gentleman and Huber 2010), and much
    power: most features of a wide SAE fire on no text of a concept.

    Args:
        wins: pairs where the concept text exceeds its twin, no two of them sharing a text, [F].
        losses: those where the twin exceeds the concept text, [F].
    """
    adjusted = np.ones(len(wins))
    tested = wins + losses >= LEAST_DISCORDANT
    if tested.any():
        p = binom.sf(wins[tested] - 1, (wins + losses)[tested], 0.5)
        adjusted[tested] = false_discovery_control(p)
    return adjusted


@dataclass(frozen=True)
class SortedScores:
    """Activations of features on texts, sorted once so that many subsets can be judged.

    Attributes:
        order: texts of each feature from the highest activation down, [T, F].
        last: for each place in `order`, the last place of equal activation, [T, F].
    """

    order: Integers
    last: Integers

    @classmethod
    def of(cls, scores: Floats) -> SortedScores:
        """Sort activations [T, F]."""
        order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=0)
        texts = len(scores)
        places = np.arange(texts)[:, None]
        ends = np.ones(scores.shape, dtype=bool)
        ends[:-1] = ranked[:-1] != ranked[1:]
        # The nearest end at or after each place: a running minimum from the bottom.
        marked = np.where(ends, places, texts)
        last = np.minimum.accumulate(marked[::-1], axis=0)[::-1]
        return cls(order, last)

    def select(self, features: Integers) -> SortedScores:
        """The same for some of the features."""
        return SortedScores(self.order[:, features], self.last[:, features])

    def average_precision(self, positive: Bools, used: Bools) -> Floats:
        """Average precision of every feature as a detector of the positive texts.

        Σ over thresholds of (recall step) x precision, ties as one threshold, as scikit-learn's
        `average_precision_score`.

        Args:
            positive: texts that carry the concept, [T].
            used: texts that count, [T]; at least one positive text must.

        Returns:
            Average precision, [F].
        """
        hits = np.cumsum((positive & used).astype(np.float32)[self.order], axis=0)
        seen = np.cumsum(used.astype(np.float32)[self.order], axis=0)
        precision = np.take_along_axis(hits, self.last, axis=0) / np.maximum(
            np.take_along_axis(seen, self.last, axis=0), 1
        )
        gained = np.diff(hits, axis=0, prepend=0)
        average: Floats = (gained * precision).sum(axis=0) / hits[-1]
        return average


def resampled_average_precision(
    scores: Floats, positive: Bools, weights: Integers | Floats
) -> Floats:
    """Average precision of one feature under many weightings of the texts.

    Args:
        scores: activations, [T].
        positive: texts that carry the concept, [T].
        weights: how often each resample drew each text, [R, T].

    Returns:
        Average precision per resample, [R]; NaN where a resample drew no positive text.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))
    hits = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    seen = np.cumsum(weights[:, order], axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(seen > 0, hits / seen, 0)
        average: Floats = (gained * precision).sum(axis=1) / hits[:, -1]
    return average


def clusters_of_pairs(pairs: Sequence[ContrastPair]) -> Integers:
    """Number the groups of pairs that share a text, directly or through others, [P].

    Such pairs are no independent evidence: they stay in one half and are resampled together.
    """
    texts: dict[str, int] = {}
    rows, columns = [], []
    for number, pair in enumerate(pairs):
        for text in (pair.positive, pair.negative):
            rows.append(number)
            columns.append(len(pairs) + texts.setdefault(text, len(texts)))
    size = len(pairs) + len(texts)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, numbered = np.unique(labels[: len(pairs)], return_inverse=True)
    return numbered


def halve(pairs: Sequence[ContrastPair], clusters: Integers, seed: int) -> Integers:
    """Assign each cluster of pairs to half 0 or 1, evenly within every concept.

    Args:
        pairs: all pairs of the study.
        clusters: cluster of each pair, [P].
        seed: seed of the shuffle.

    Returns:
        Half of each cluster, [number of clusters].
    """
    generator = np.random.default_rng(seed)
    halves = np.full(clusters.max() + 1, -1)
    concepts: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        concepts.setdefault(pair.concept, []).append(int(clusters[number]))
    for members in concepts.values():
        # Large clusters first, each to the emptier half, so that few large ones stay balanced.
        numbers, sizes = np.unique(members, return_counts=True)
        shuffled = generator.permutation(len(numbers))
        filled = np.zeros(2)
        for place in (halves[numbers] >= 0).nonzero()[0]:
            filled[halves[numbers[place]]] += sizes[place]
        for place in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            if halves[numbers[place]] >= 0:
                continue
            half = int(generator.integers(2)) if filled[0] == filled[1] else int(filled.argmin())
            halves[numbers[place]] = half
            filled[half] += sizes[place]
    return halves
