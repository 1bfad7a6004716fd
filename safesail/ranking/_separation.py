"""How well single features separate a concept's texts, cross-fitted over halves of the pairs.

Shapes: T texts, F features, R resamples. Formulas are stated in docs/ranking.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from safesail.ranking._design import SPLITS, PairDesign, Role
from safesail.ranking._distinguish import LEAST_RESAMPLES
from safesail.ranking._sorted_scores import SortedScores

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]

# With fewer independent pairs in a half, no feature can be picked on it with any confidence.
LEAST_CLUSTERS = 2
_TOP = 10
# A resample picks its feature among the first few that are so near to the best: others hardly ever
# come first in one.
_RIVALS, _NEAR = 5, 0.25
_PROBE_FEATURES = 5
# The mean of two splits varies a little more than that of four, and costs half as much.
_RESAMPLED_SPLITS = 2


@dataclass(frozen=True)
class Separation:
    """Cross-fitted separation of one concept by one SAE; meanings as in the rankings table.

    Attributes:
        best: average precision of the feature picked on the other half.
        top10: mean over the ten picked.
        auroc: area under the receiver operating characteristic of the picked feature.
        f1: of the picked feature, its threshold chosen where it was picked.
        probe5: average precision of a logistic regression on the five picked.
        resampled: `best` under each resample of the pairs, [R]; NaN where one drew no text to
            pick or judge on.
        resampled_auroc: `auroc` under each.
        evidence: clusters of pairs.
    """

    best: float
    top10: float
    auroc: float
    f1: float
    probe5: float
    resampled: Floats
    resampled_auroc: Floats
    evidence: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `best`."""
        return share_interval(self.best, self.resampled, self.evidence)

    @property
    def auroc_interval(self) -> tuple[float, float]:
        """95 % interval of `auroc`."""
        return share_interval(self.auroc, self.resampled_auroc, self.evidence)


def share_interval(value: float, resampled: Floats, evidence: int) -> tuple[float, float]:
    """95 % interval of a value between 0 and 1, from its resamples.

    On the logit scale, where intervals of shares are nearly symmetric and stay inside [0, 1]:
    Student's quantile times the bootstrap's standard error, enlarged by sqrt(n / (n - 2)) for the
    clusters of the two halves. Without a mistake in the sample no resample has one: the error
    counts as at least a quarter of a cluster, and the value as at least that far from 0 and 1.

    NaN where no feature distinguishes any pair, or there are fewer than four clusters.
    """
    return mean_share_interval([value], resampled[None], [evidence])


def mean_share_interval(
    values: Sequence[float], resampled: Floats, evidence: Sequence[int]
) -> tuple[float, float]:
    """95 % interval of the mean over concepts of values between 0 and 1, from their resamples.

    As `share_interval`, each concept's error enlarged by its own number of clusters, and Student's
    degrees of freedom by Welch and Satterthwaite: a concept of few clusters that varies much leaves
    few.

    Args:
        values: one a concept, [K].
        resampled: each under the same resamples, [K, R].
        evidence: clusters of each, [K].
    """
    clusters, known = np.array(evidence), np.isfinite(resampled).sum(axis=-1)
    if not len(values) or clusters.min() < 2 * LEAST_CLUSTERS or known.min() < LEAST_RESAMPLES:
        return float("nan"), float("nan")
    # A concept that a resample does not know adds nothing there, and as much more elsewhere.
    enlarged = np.sqrt(clusters / (clusters - 2) * resampled.shape[1] / known)
    spread = resampled - np.nanmean(resampled, axis=1, keepdims=True)
    spread = np.nan_to_num(spread) * enlarged[:, None]
    least = 0.25 / clusters
    alone = np.var(spread, axis=1, ddof=1) + least**2
    freedom = alone.sum() ** 2 / (alone**2 / (clusters - 2)).sum()
    variance = np.var(spread.mean(axis=0), ddof=1) + (least**2).sum() / len(values) ** 2
    value, margin = float(np.mean(values)), float(least.mean())
    middle = min(max(value, margin), 1 - margin)
    half = t.ppf(0.975, freedom) * np.sqrt(variance) / (middle * (1 - middle))
    logit = np.log(middle / (1 - middle))
    low, high = 1 / (1 + np.exp(-np.array([logit - half, logit + half])))
    return float(min(low, value)), float(max(high, value))


def separate(
    pooled: NDArray[np.float32],
    wins: Bools,
    scores: SortedScores,
    role: Role,
    design: PairDesign,
) -> Separation:
    """Cross-fit the separation of one concept.

    Features are picked on one half of the pairs, among those that distinguish at least one of
    them, and judged on the other half; then the halves swap. The results of both ways and of all
    splits are averaged.

    Args:
        pooled: activation of each feature on each text, [T, F].
        wins: pairs of the concept that each feature distinguishes, [pairs of the concept, F].
        scores: `pooled`, sorted.
        role: what texts and pairs are to the concept.
        design: what all candidates share.
    """
    halves = design.halves[:, design.clusters[role.pairs]]
    values = np.full((SPLITS, 4), np.nan)
    resampled = np.full((2, len(design.draws)), np.nan)
    probe5 = float("nan")
    if all(_enough(role, half) for half in halves):
        weights = design.draws[:, design.cluster_of_texts]
        again = np.zeros((_RESAMPLED_SPLITS, 2, len(weights)))
        for split, half in enumerate(halves):
            text_half = design.halves[split][design.cluster_of_texts]
            ways = [
                _pick(pooled, wins[half != side], scores, role, text_half == side)
                for side in (0, 1)
            ]
            values[split] = np.mean([way.values() for way in ways], axis=0)
            if split < _RESAMPLED_SPLITS:
                again[split] = np.mean([way.resample(weights) for way in ways], axis=0)
            if split == 0:  # a baseline, and slow: one split does
                probe5 = float(np.mean([way.probe() for way in ways]))
        resampled = again.mean(axis=0)
    best, auroc, top10, f1 = (float(value) for value in values.mean(0))
    return Separation(
        best=best,
        top10=top10,
        auroc=auroc,
        f1=f1,
        probe5=probe5,
        resampled=resampled[0],
        resampled_auroc=resampled[1],
        evidence=role.evidence,
    )


def _enough(role: Role, half_of_pairs: Integers) -> bool:
    return all(
        len(np.unique(role.clusters[half_of_pairs == half])) >= LEAST_CLUSTERS for half in (0, 1)
    )


@dataclass(frozen=True)
class _Way:
    """Features picked on one half, to be judged on the other.

    Attributes:
        picked: the ten with the highest average precision on `fit`, best first; fewer where fewer
            distinguish any pair.
        fitted: that precision, [picked].
        fit: weights of the texts of the half that features are picked on, [T]; of others 0.
        judge: those of the half that they are judged on, [T].
    """

    pooled: NDArray[np.float32]
    scores: SortedScores
    role: Role
    picked: Integers
    fitted: Floats
    fit: Floats
    judge: Floats

    def values(self) -> tuple[float, float, float, float]:
        """best, auroc, top10, f1; where no feature distinguishes any pair, those of chance."""
        positive, judge = self.role.positive, self.judge
        if not len(self.picked):
            chance = float((positive * judge).sum() / judge.sum())
            return chance, 0.5, chance, 0.0
        precision = self.scores.select(self.picked).average_precision(positive * judge, judge)
        best = self.pooled[:, self.picked[0]]
        area = receiver_curve(best, positive, judge[None])
        f1 = _f1(best, positive, self.fit, judge)
        return float(precision[0]), float(area[0]), float(precision.mean()), f1

    def probe(self) -> float:
        """Average precision on `judge` of a logistic regression on `fit`, features standardised."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import average_precision_score

        if not len(self.picked):
            return self.values()[0]
        fit, judge = self.fit > 0, self.judge > 0
        features = self.pooled[:, self.picked[:_PROBE_FEATURES]].astype(np.float64)
        spread = features[fit].std(axis=0)
        features = (features - features[fit].mean(axis=0)) / np.where(spread > 0, spread, 1)
        probe = LogisticRegression(solver="newton-cholesky")
        probe.fit(features[fit], self.role.positive[fit], sample_weight=self.fit[fit])
        scores = probe.decision_function(features[judge])
        truth = self.role.positive[judge]
        return float(average_precision_score(truth, scores, sample_weight=self.judge[judge]))

    def resample(self, weights: Integers) -> Floats:
        """Pick and judge again under each resample: best and auroc, [2, R].

        NaN where nothing was picked, and where a resample drew no positive text of a half.

        Args:
            weights: how often each resample drew each text, [R, T].
        """
        positive, judge = self.role.positive, self.judge
        found = np.full((2, len(weights)), np.nan)
        if not len(self.picked):
            return found
        rivals = self.picked[self.fitted >= self.fitted[0] - _NEAR][:_RIVALS]
        hits, seen = weights * (positive * self.fit), weights * self.fit
        # One by one: a feature's resamples fit in the processor's cache, those of ten do not.
        in_fit = np.column_stack(
            [
                self.scores.select(rivals[[n]]).average_precision(hits, seen)
                for n in range(len(rivals))
            ]
        )
        again = np.nan_to_num(in_fit).argmax(axis=1)
        for place in np.unique(again):
            rows = np.flatnonzero((again == place) & np.isfinite(in_fit).all(axis=1))
            some = weights[rows] * judge
            rival = self.scores.select(rivals[[place]])
            found[0, rows] = rival.average_precision(some * positive, some)[:, 0]
            found[1, rows] = receiver_curve(self.pooled[:, rivals[place]], positive, some)
        return found


def _pick(
    pooled: NDArray[np.float32], wins: Bools, scores: SortedScores, role: Role, judged: Bools
) -> _Way:
    """Pick on the texts that are not `judged`.

    Args:
        wins: of the pairs that features are picked on, [pairs, F].
        judged: texts of the half that is judged on, [T].
    """
    fit, judge = role.weight * ~judged, role.weight * judged
    tried = np.flatnonzero(wins.any(0))
    fitted = scores.select(tried).average_precision(role.positive * fit, fit)
    order = np.argsort(-fitted, kind="stable")[:_TOP]
    return _Way(pooled, scores, role, tried[order], fitted[order], fit, judge)


def receiver_curve(scores: Floats, positive: Bools, weights: Floats | Integers) -> Floats:
    """Area under the receiver operating characteristic under many weightings of the texts.

    The probability that a positive text scores above a negative one, ties counting half.

    Args:
        scores: activations, [T].
        positive: texts that carry the concept, [T].
        weights: how often each text counts, [R, T].

    Returns:
        [R]; NaN where no positive or no negative text counts.
    """
    order = np.argsort(scores, kind="stable")
    firsts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    positives, negatives = (
        np.add.reduceat(weights[:, order] * side[order], firsts, axis=1).astype(float)
        for side in (positive, ~positive)
    )
    below = np.cumsum(negatives, axis=1) - negatives / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = (positives * below).sum(1) / (positives.sum(1) * negatives.sum(1))
    return area


def _f1(scores: Floats, positive: Bools, fit: Floats, judge: Floats) -> float:
    """F1 on the texts that `judge` weighs, at the threshold that is best on those of `fit`."""
    order = np.argsort(-scores, kind="stable")
    values, hits = scores[order], np.cumsum((positive * fit)[order])
    ends = np.append(values[:-1] != values[1:], True)
    f1 = 2 * hits / (np.cumsum(fit[order]) + hits[-1] + 1e-12)
    threshold = values[np.argmax(np.where(ends, f1, -1.0))]
    named = scores >= threshold
    return float(2 * judge[named & positive].sum() / (judge[named].sum() + judge[positive].sum()))
