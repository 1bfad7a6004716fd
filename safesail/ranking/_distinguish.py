"""Which features distinguish which contrast pairs, and how many would by chance.

Shapes: P pairs of a concept, C clusters of them (independent pieces of evidence), F features.
Formulas are stated in docs/ranking.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control, norm, t

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Integers = NDArray[np.integer]

LEVELS = (0.3, 0.5, 0.7, 0.9)
# The fewest fair coins whose all showing heads has a probability below 0.05.
LEAST_DISCORDANT = 5
# Fewer resamples that drew anything of a concept give no interval.
LEAST_RESAMPLES = 50


@dataclass(frozen=True)
class Distinction:
    """How the features of one SAE fall on the pairs of one concept.

    Attributes:
        f: share of pairs that each feature distinguishes, [F].
        votes: clusters in whose voting pairs the feature's wins outnumber its losses, [F].
        counter_votes: clusters in which its losses outnumber its wins, [F].
        evidence: clusters of pairs.
        by_pair: share of the features that distinguish each pair, [P].
    """

    f: Floats
    votes: Integers
    counter_votes: Integers
    evidence: int
    by_pair: Floats

    @classmethod
    def of(cls, wins: Bools, losses: Bools, clusters: Integers, voting: Bools) -> Distinction:
        """Count.

        Args:
            wins: pairs where the concept text exceeds its twin by the margin, [P, F].
            losses: pairs where the twin exceeds the concept text, [P, F].
            clusters: cluster of each pair, numbered from 0, [P].
            voting: pairs that decide their cluster's vote, at least one of each cluster, [P].
        """
        order = np.flatnonzero(voting)
        order = order[np.argsort(clusters[order], kind="stable")]
        firsts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
        lead = np.add.reduceat(wins[order].astype(np.int32), firsts, axis=0)
        lead -= np.add.reduceat(losses[order].astype(np.int32), firsts, axis=0)
        return cls(
            f=wins.mean(0),
            votes=(lead > 0).sum(0),
            counter_votes=(lead < 0).sum(0),
            evidence=len(firsts),
            by_pair=wins.mean(1),
        )

    @property
    def i_cdf(self) -> float:
        """Mean of f over all features."""
        return float(self.f.mean())

    def count(self, level: float) -> int:
        """L0_t: features that distinguish at least this share of the pairs."""
        return int((self.f >= level - 1e-9).sum())

    def excess(self, level: float) -> float:
        """Features that win at least this share of the clusters, less the number of them by chance.

        Where every pair is a cluster of its own the former is L0_t. By chance, that is with the two
        sides of every cluster swapped at random, a cluster that a feature tells apart either way
        votes by a fair coin: the number expected is the sum over features of
        P(Binomial(votes both ways, 1/2) >= level x clusters).
        """
        needed = ceil(level * self.evidence - 1e-9)
        discordant = np.bincount(self.votes + self.counter_votes, minlength=self.evidence + 1)
        chance = binom.sf(needed - 1, np.arange(self.evidence + 1), 0.5)
        return float((self.votes >= needed).sum() - discordant @ chance)

    def interval(self) -> tuple[Floats, Floats]:
        """95 % Wilson interval of f, with the clusters as independent draws; each [F]."""
        return wilson(self.f, self.evidence)

    def q_values(self) -> Floats:
        """Adjusted p of each feature against the null that sides may be swapped, [F].

        Exact one-sided binomial test on the discordant clusters (the sign test), then
        Benjamini-Hochberg. Features with too few of them to reach p = 0.05 even if they won them
        all are left out of the adjustment and get q = 1: the number of discordant clusters says
        nothing of their direction, so this costs no validity (independent filtering; Bourgon,
        Gentleman and Huber 2010), and most features of a wide SAE fire on no text of a concept.
        """
        adjusted = np.ones(len(self.f))
        tested = self._tested()
        if tested.any():
            p = binom.sf(self.votes[tested] - 1, self._discordant()[tested], 0.5)
            adjusted[tested] = false_discovery_control(p)
        return adjusted

    def least_callable(self, false_discovery_rate: float) -> float:
        """The smallest share of the clusters with which one more feature would be called.

        One that wins w clusters and loses none has p = 2^-w; beside k called features it is called
        if that is at most (k + 1) x rate / features tested (Benjamini and Hochberg). NaN where all
        clusters would not be enough.
        """
        called = int((self.q_values() <= false_discovery_rate).sum())
        tested = max(1, int(self._tested().sum()))
        needed = ceil(log2(tested / (called + 1) / false_discovery_rate))
        needed = max(needed, LEAST_DISCORDANT)
        return needed / self.evidence if needed <= self.evidence else float("nan")

    def _discordant(self) -> Integers:
        return self.votes + self.counter_votes

    def _tested(self) -> Bools:
        tested: Bools = self._discordant() >= LEAST_DISCORDANT
        return tested


def wilson(share: Floats, draws: int) -> tuple[Floats, Floats]:
    """95 % interval of proportions of `draws` independent draws (Wilson 1927, score interval)."""
    z2 = norm.ppf(0.975) ** 2
    centre = (share + z2 / (2 * draws)) / (1 + z2 / draws)
    spread = share * (1 - share) / draws + z2 / (4 * draws**2)
    half = np.sqrt(z2 * spread) / (1 + z2 / draws)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def mean_interval(
    value: float, resampled: Floats, evidence: int, least: float = 0.0
) -> tuple[float, float]:
    """95 % interval of a mean over few clusters, from its resamples.

    The bootstrap's standard error, enlarged by sqrt(n / (n - 1)) because a resample varies about
    the sample's mean, times Student's quantile with n - 1 degrees of freedom. Resamples that drew
    nothing are NaN and left out.
    """
    resampled = resampled[np.isfinite(resampled)]
    if evidence < 2 or len(resampled) < LEAST_RESAMPLES:
        return float("nan"), float("nan")
    error = float(np.std(resampled, ddof=1)) * np.sqrt(evidence / (evidence - 1))
    half = float(t.ppf(0.975, evidence - 1)) * error
    return max(least, value - half), value + half
