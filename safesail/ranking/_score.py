"""Score one observed candidate on every concept and choose its features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safesail.concepts import ConceptSet
from safesail.ranking._statistics import (
    SortedScores,
    clusters_of_pairs,
    halve,
    q_values,
    resampled_average_precision,
    share_of_pairs,
)
from safesail.study import RankingSettings

RESAMPLES = 400
# With fewer clusters of pairs in a half, no feature can be picked on it with any confidence.
LEAST_CLUSTERS = 2
FEW_PAIRS = 20
LEAST_CHOSEN = 10
FEW_PAIRS_WARNING = f"fewer than {FEW_PAIRS} pairs, so intervals are wide"
NONE_CALLED_WARNING = (
    f"no feature called at the false discovery rate, the best {LEAST_CHOSEN} chosen all the same"
)
LEVELS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class PairDesign:
    """What all candidates share: texts, pairs, halves, resamples.

    Attributes:
        concepts: the study's concepts.
        texts: every distinct text, in the order of the pooled activations.
        positive: text number of each pair's positive, [P].
        negative: text number of each pair's twin, [P].
        clusters: cluster of each pair, pairs that share a text together, [P].
        halves: half of each cluster.
        draws: how often each resample drew each cluster, [RESAMPLES, clusters].
    """

    concepts: ConceptSet
    texts: tuple[str, ...]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    clusters: NDArray[np.integer]
    halves: NDArray[np.integer]
    draws: NDArray[np.integer]

    @classmethod
    def of(cls, concepts: ConceptSet, seed: int) -> PairDesign:
        """Number the texts and draw halves and resamples."""
        numbers: dict[str, int] = {}
        positive = [numbers.setdefault(p.positive, len(numbers)) for p in concepts.pairs]
        negative = [numbers.setdefault(p.negative, len(numbers)) for p in concepts.pairs]
        clusters = clusters_of_pairs(concepts.pairs)
        halves = halve(concepts.pairs, clusters, seed)
        # Clusters are drawn within their half, so that both ways keep their size.
        generator = np.random.default_rng(seed)
        draws = np.zeros((RESAMPLES, len(halves)), dtype=np.int64)
        for half in (0, 1):
            members = np.flatnonzero(halves == half)
            if len(members):
                draws[:, members] = generator.multinomial(
                    len(members), np.full(len(members), 1 / len(members)), RESAMPLES
                )
        return cls(
            concepts=concepts,
            texts=tuple(numbers),
            positive=np.array(positive),
            negative=np.array(negative),
            clusters=clusters,
            halves=halves,
            draws=draws,
        )

    @cached_property
    def half_of_texts(self) -> NDArray[np.integer]:
        """Half of each text, [T]."""
        return self.halves[self.cluster_of_texts]

    @cached_property
    def cluster_of_texts(self) -> NDArray[np.integer]:
        """Cluster of each text, [T]; a text's pairs all lie in one cluster."""
        clusters = np.zeros(len(self.texts), dtype=np.int64)
        clusters[self.positive] = self.clusters
        clusters[self.negative] = self.clusters
        return clusters

    @cached_property
    def own_pairs(self) -> dict[str, NDArray[np.int64]]:
        """By concept: numbers of its pairs, its children's included."""
        return {name: np.array(self.concepts.pair_numbers(name)) for name in self.concepts.names}

    @cached_property
    def roles(self) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
        """By concept: texts that carry it, and texts that count for it, each [T].

        What counts: the concept's texts, their twins, and the positive texts of concepts outside
        its branch. A text that is also a positive of the concept is never a negative.
        """
        return {name: self._roles(name) for name in self.concepts.names}

    def _roles(self, concept: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        own, branch = self.own_pairs[concept], self.concepts.branch(concept)
        positive = np.zeros(len(self.texts), dtype=bool)
        positive[self.positive[own]] = True
        used = positive.copy()
        used[self.negative[own]] = True
        outside = [n for n, pair in enumerate(self.concepts.pairs) if pair.concept not in branch]
        used[self.positive[outside]] = True
        return positive, used

    def disjoint(self, pairs: Iterable[int]) -> list[int]:
        """Of some pairs, in order, those that share no text with one taken before.

        Pairs that share a text fall the same way together: a test may count them once only.
        """
        taken: set[int] = set()
        kept = []
        for pair in pairs:
            texts = {int(self.positive[pair]), int(self.negative[pair])}
            if not texts & taken:
                taken |= texts
                kept.append(pair)
        return kept


@dataclass(frozen=True)
class ConceptScore:
    """One candidate's numbers on one concept; meanings as in the rankings table."""

    concept: str
    pairs: int
    i_cdf: float
    l0: dict[float, int]
    called_features: int
    separation_best: float
    separation_top10: float
    separation_chance: float
    resampled: NDArray[np.floating]
    """separation_best under each resample of the pairs, [RESAMPLES]."""
    chosen: list[dict[str, float | int]]
    """Chosen features, best first: feature, f, f_low, f_high, q_value, separation, specificity."""
    warnings: tuple[str, ...]

    clusters: int
    """Independent pairs: those that share a text count once."""

    def interval(self) -> tuple[float, float]:
        """95 % interval of separation_best; NaN where no feature distinguishes any pair.

        The percentile interval over resampled clusters of pairs, joined with the Wilson interval
        of a proportion of the same value over as many clusters: a sample without a mistake has
        none in any resample, and would be taken for certainty.
        """
        if not np.isfinite(self.resampled).all():
            return float("nan"), float("nan")
        low, high = np.quantile(self.resampled, [0.025, 0.975])
        hits = np.array([self.separation_best * self.clusters])
        _, least, most = share_of_pairs(hits, self.clusters)
        return min(float(low), float(least[0])), max(float(high), float(most[0]))


def score_candidate(
    pooled: NDArray[np.float32],
    q999: NDArray[np.float32],
    design: PairDesign,
    settings: RankingSettings,
) -> list[ConceptScore]:
    """Score a candidate on every concept of the study.

    Args:
        pooled: activation of each feature on each text of the design, [T, F].
        q999: 0.999 quantile of each feature's non-zero activations, [F].
        design: what all candidates share.
        settings: margin, false discovery rate, how many features to choose.
    """
    difference = pooled[design.positive] - pooled[design.negative]
    margin = settings.margin * q999
    wins, losses = difference > margin, -difference > margin
    sorted_scores = SortedScores.of(pooled)
    shares = {concept: wins[design.own_pairs[concept]].mean(0) for concept in design.concepts.names}
    return [
        _score(concept, pooled, wins, losses, shares, sorted_scores, design, settings)
        for concept in design.concepts.names
    ]


def _score(
    concept: str,
    pooled: NDArray[np.float32],
    wins: NDArray[np.bool_],
    losses: NDArray[np.bool_],
    shares: dict[str, NDArray[np.floating]],
    sorted_scores: SortedScores,
    design: PairDesign,
    settings: RankingSettings,
) -> ConceptScore:
    own = design.own_pairs[concept]
    won, lost = wins[own].sum(0), losses[own].sum(0)
    f, f_low, f_high = share_of_pairs(won, len(own))
    independent = design.disjoint(own)
    q = q_values(wins[independent].sum(0), losses[independent].sum(0))
    positive, used = design.roles[concept]
    best, top10, resampled = _separation(concept, pooled, wins, sorted_scores, design)

    called = q <= settings.false_discovery_rate
    # Where few are called (or none: few pairs), the best of those that lean towards the concept
    # are chosen too, or where none does the best of all that fire, so that a user has something
    # to look at; `called` tells them apart.
    leaning = np.flatnonzero(called | (won > lost))
    if not len(leaning):
        leaning = np.flatnonzero(pooled.max(0) > 0)
    in_sample = sorted_scores.select(leaning).average_precision(positive, used)
    order = np.lexsort((-in_sample, ~called[leaning]))
    count = min(settings.features_per_concept, max(LEAST_CHOSEN, int(called.sum())))
    order = order[:count]
    branch = design.concepts.branch(concept)
    outside = [shares[other] for other in design.concepts.names if other not in branch]
    rival = np.max(outside, axis=0) if outside else np.zeros_like(f)
    chosen = [
        {
            "feature": int(feature),
            "f": float(f[feature]),
            "f_low": float(f_low[feature]),
            "f_high": float(f_high[feature]),
            "q_value": float(q[feature]),
            "called": bool(called[feature]),
            "separation": float(separation),
            "specificity": float(f[feature] - rival[feature]),
        }
        for feature, separation in zip(leaning[order], in_sample[order], strict=True)
    ]
    warnings = []
    if len(own) < FEW_PAIRS:
        warnings.append(FEW_PAIRS_WARNING)
    if not called.any():
        warnings.append(NONE_CALLED_WARNING)
    return ConceptScore(
        concept=concept,
        pairs=len(own),
        i_cdf=float(f.mean()),
        l0={level: int((f >= level).sum()) for level in LEVELS},
        called_features=int(called.sum()),
        separation_best=best,
        separation_top10=top10,
        separation_chance=float(positive.sum() / used.sum()),
        resampled=resampled,
        chosen=chosen,
        warnings=tuple(warnings),
        clusters=len(np.unique(design.clusters[own])),
    )


def _separation(
    concept: str,
    pooled: NDArray[np.float32],
    wins: NDArray[np.bool_],
    sorted_scores: SortedScores,
    design: PairDesign,
) -> tuple[float, float, NDArray[np.floating]]:
    """Cross-fitted average precision of the best feature and of the best ten, and resamples.

    Features are picked on one half of the pairs, among those that distinguish at least one of
    them, and judged on the other half; then the halves swap, and the two results are averaged.
    """
    positive, used = design.roles[concept]
    half, text_clusters = design.half_of_texts, design.cluster_of_texts
    own = design.own_pairs[concept]
    pair_half = design.halves[design.clusters[own]]
    best, top10 = [], []
    resampled = np.zeros((2, RESAMPLES))
    for judged in (0, 1):
        fitted_pairs = own[pair_half != judged]
        fit, judge = used & (half != judged), used & (half == judged)
        clusters = [len(set(design.clusters[own[pair_half == side]])) for side in (0, 1)]
        if min(clusters) < LEAST_CLUSTERS:
            return float("nan"), float("nan"), np.full(RESAMPLES, np.nan)
        tried = np.flatnonzero(wins[fitted_pairs].any(0))
        if not len(tried):
            # No feature distinguishes any pair: an uninformed choice does as well as chance.
            chance = float((positive & judge).sum() / judge.sum())
            best.append(chance)
            top10.append(chance)
            resampled[judged] = np.nan
            continue
        subset = sorted_scores.select(tried)
        order = np.argsort(-subset.average_precision(positive, fit), kind="stable")[:10]
        judged_scores = sorted_scores.select(tried[order]).average_precision(positive, judge)
        best.append(float(judged_scores[0]))
        top10.append(float(judged_scores.mean()))
        weights = design.draws[:, text_clusters[judge]]
        resampled[judged] = resampled_average_precision(
            pooled[judge, tried[order[0]]], positive[judge], weights
        )
    return float(np.mean(best)), float(np.mean(top10)), resampled.mean(0)
