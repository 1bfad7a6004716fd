"""What all candidates share: the pairs' texts, which count for a concept, halves, resamples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safesail.concepts import ConceptSet
from safesail.ranking._clusters import clusters_of_pairs, draw_clusters, halve, pairs_that_vote

RESAMPLES = 200
SWAPS = 20
OTHER_TEXTS = 8
"""Other concepts' texts together weigh so many times as much as the texts that carry a concept.

Their number in the study would make average precision depend on how many pairs the user's other
concepts happen to have: they are weighted instead.
"""
SPLITS = 4
"""Separation is the mean over so many ways to halve the pairs: one way alone moves it."""


@dataclass(frozen=True)
class Role:
    """What the texts and pairs are to one concept; T texts, P pairs of the study.

    Attributes:
        concept: its name.
        pairs: numbers of its pairs, its children's included.
        clusters: for each of them, which independent piece of evidence it belongs to, counted
            from 0.
        voting: those of them that share no text with each other.
        positive: texts that carry it, [T].
        twin: their twins, [T]; a text that is also a positive of the concept is none.
        other: texts of concepts outside its branch, [T].
        weight: how much each text counts for it, [T]: see `weigh`.
    """

    concept: str
    pairs: NDArray[np.int64]
    clusters: NDArray[np.int64]
    voting: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    twin: NDArray[np.bool_]
    other: NDArray[np.bool_]
    weight: NDArray[np.float64]

    @property
    def evidence(self) -> int:
        """Number of independent pieces of evidence: clusters of pairs."""
        return int(self.clusters.max()) + 1

    @property
    def chance(self) -> float:
        """Average precision of a random order."""
        return float(self.weight[self.positive].sum() / self.weight.sum())


@dataclass(frozen=True)
class PairDesign:
    """Texts, pairs, halves, resamples.

    Attributes:
        concepts: the study's concepts.
        texts: every distinct text, in the order of the pooled activations.
        positive: text number of each pair's positive, [P].
        negative: text number of each pair's twin, [P].
        clusters: cluster of each pair: those that share a text or a template together, [P].
        halves: half of each cluster, by split, [SPLITS, clusters].
        draws: how often each resample drew each cluster, [RESAMPLES, clusters]; every resample
            keeps the number of each top-level concept's clusters.
        swaps: clusters whose two sides each random swap exchanges, [SWAPS, clusters].
    """

    concepts: ConceptSet
    texts: tuple[str, ...]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    clusters: NDArray[np.integer]
    halves: NDArray[np.integer]
    draws: NDArray[np.integer]
    swaps: NDArray[np.bool_]

    @classmethod
    def of(cls, concepts: ConceptSet, seed: int) -> PairDesign:
        """Number the texts and draw halves and resamples."""
        numbers: dict[str, int] = {}
        positive = [numbers.setdefault(p.positive, len(numbers)) for p in concepts.pairs]
        negative = [numbers.setdefault(p.negative, len(numbers)) for p in concepts.pairs]
        clusters = clusters_of_pairs(concepts.pairs)
        concept_of = dict(
            zip(clusters.tolist(), (pair.concept for pair in concepts.pairs), strict=True)
        )
        halves = np.array(
            [halve(concepts.pairs, clusters, seed * SPLITS + split) for split in range(SPLITS)]
        )
        # A stratum of one cluster would never vary, and children may have few: a parent's are one.
        strata = [concept_of[cluster].split("/")[0] for cluster in range(halves.shape[1])]
        draws = draw_clusters(strata, RESAMPLES, seed)
        swaps = np.random.default_rng(seed).random((SWAPS, halves.shape[1])) < 0.5
        return cls(
            concepts=concepts,
            texts=tuple(numbers),
            positive=np.array(positive),
            negative=np.array(negative),
            clusters=clusters,
            halves=halves,
            draws=draws,
            swaps=swaps,
        )

    @cached_property
    def cluster_of_texts(self) -> NDArray[np.integer]:
        """Cluster of each text, [T]; a text's pairs all lie in one cluster."""
        clusters = np.zeros(len(self.texts), dtype=np.int64)
        clusters[self.positive] = self.clusters
        clusters[self.negative] = self.clusters
        return clusters

    @cached_property
    def roles(self) -> dict[str, Role]:
        """By concept, what texts and pairs are to it."""
        return {name: self._role(name) for name in self.concepts.names}

    def _role(self, concept: str) -> Role:
        own, branch = np.array(self.concepts.pair_numbers(concept)), self.concepts.branch(concept)
        outside = [n for n, pair in enumerate(self.concepts.pairs) if pair.concept not in branch]
        positive, twin, other = np.zeros((3, len(self.texts)), dtype=bool)
        positive[self.positive[own]] = True
        twin[self.negative[own]] = True
        twin &= ~positive
        other[self.positive[outside]] = other[self.negative[outside]] = True
        other &= ~(positive | twin)
        _, clusters = np.unique(self.clusters[own], return_inverse=True)
        voting = pairs_that_vote([self.concepts.pairs[pair] for pair in own])
        weight = weigh(positive, twin, other)
        return Role(concept, own, clusters, voting, positive, twin, other, weight)


def weigh(
    positive: NDArray[np.bool_], twin: NDArray[np.bool_], other: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How much each text counts: 1 if it carries the concept.

    Its twins weigh as much in all as those, and other concepts' texts OTHER_TEXTS times as much;
    where there are none of the one kind, the other takes its part too. So the average precision of
    a random order is always 1 / (2 + OTHER_TEXTS).

    Args:
        positive: texts that carry the concept, [T].
        twin: their twins, [T].
        other: texts of other concepts, [T].

    Returns:
        [T]; 0 for all other texts.
    """
    weight = positive.astype(np.float64)
    parts = [(twin, 1), (other, OTHER_TEXTS)]
    total = sum(part for texts, part in parts if texts.any())
    for texts, part in parts:
        if texts.any():
            share = part / total * (1 + OTHER_TEXTS)
            weight[texts] = share * positive.sum() / texts.sum()
    return weight
