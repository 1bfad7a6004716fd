"""How much more a score varies because the answers of one prompt go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from safesail.explaining._sample import Sample, centred, members_of
from safesail.explaining._scores import Score, influences

SCORES: tuple[Score, ...] = ("correlation", "discrimination")

# Features' worth of independence that are added, so that few features say little.
_PRIOR_FEATURES = 2


@dataclass(frozen=True)
class DesignEffect:
    """Intra-prompt correlations of what items contribute to a score.

    Attributes:
        correlation: of the contributions to `correlation`, at least 0.
        discrimination: of those to `discrimination`, at least 0.
        features: how many features it was estimated from.
    """

    correlation: float = 0.0
    discrimination: float = 0.0
    features: int = 0

    def of(self, score: Score, sizes: Sequence[int]) -> float:
        """Factor of the variance for prompts of these sizes.

        Kish (1965): 1 + (m - 1) rho, for unequal sizes with m = sum of squares / sum.
        """
        return 1 + getattr(self, score) * (mean_size(sizes) - 1)


INDEPENDENT = DesignEffect()
"""Answers of one prompt do not go together."""


@dataclass(frozen=True)
class Contribution:
    """One feature's excess of variance between prompts, per item that shares a prompt.

    Each is an estimate of the intra-prompt correlation, far too noisy alone; None where the
    score has no error to speak of.
    """

    correlation: float | None
    discrimination: float | None


@dataclass
class PooledDesignEffect:
    """The design effect of a judge and an item format, pooled over features.

    The intra-prompt correlation is the mean of the features' estimates and of two more features
    without any (which shrinks it towards 0 where there are few), plus one standard error of that
    mean: from 30 features the mean alone is too noisy, and half the time too low, for intervals
    to cover as they say. At least 0. Features are added by a number, and summed in the order of
    it, so that the result does not depend on who ended first.
    """

    _contributions: dict[int, Contribution] = field(default_factory=dict)

    def add(self, number: int, contribution: Contribution | None) -> None:
        """Add a feature; None, of a feature with a single prompt answered, says nothing."""
        if contribution is not None:
            self._contributions[number] = contribution

    def value(self) -> DesignEffect:
        """The design effect by the features added so far."""
        ordered = [self._contributions[number] for number in sorted(self._contributions)]
        pooled = {}
        for score in SCORES:
            found = [one for c in ordered if (one := getattr(c, score)) is not None]
            count = len(found) + _PRIOR_FEATURES
            centre = math.fsum(found) / count
            squares = math.fsum((one - centre) ** 2 for one in found) + _PRIOR_FEATURES * centre**2
            error = math.sqrt(squares / (count - 1) / count)
            pooled[score] = max(0.0, centre + error)
        return DesignEffect(**pooled, features=len(ordered))


def mean_size(sizes: Sequence[int]) -> float:
    """Size of the prompt that a random item is in."""
    return sum(size**2 for size in sizes) / sum(sizes)


def contribution(sample: Sample, prompts: Sequence[int]) -> Contribution | None:
    """What one feature says of the design effect; None where fewer than two prompts answered.

    Args:
        sample: the graded windows.
        prompts: number of the prompt that each was in.
    """
    _, places = np.unique(prompts, return_inverse=True)
    if places.max(initial=0) == 0 or len(places) == places.max() + 1:
        return None
    found: dict[str, float | None] = {}
    for score in SCORES:
        influence = influences(score, sample)
        found[score] = None if influence is None else _shared(influence, sample, places)
    return Contribution(**found)


def _shared(
    influence: NDArray[np.float64], sample: Sample, places: NDArray[np.int64]
) -> float | None:
    """Estimate of the intra-prompt correlation from one sample; None without any error.

    By moments: sums over prompts of what items contribute vary as much as single items say, and
    more by the correlation of any two of a prompt. Contributions are centred within strata, which
    takes from the variance of k of a stratum's n items the share k / n, and from that of what a
    prompt of m of N items shares about as much as if all its strata were one.
    """
    residual = centred(influence, sample.strata, sample.weights)
    within = independent = 0.0
    kept = np.zeros(len(residual))
    for indices in members_of(sample.strata).values():
        count = len(indices)
        if count < 2:
            continue
        kept[indices] = residual[indices]
        variance = float((residual[indices] ** 2).sum()) * count / (count - 1)
        share = np.bincount(places[indices]) / count
        within += variance
        independent += variance * float((share * (1 - share)).sum())
    sizes = np.bincount(places)
    share = sizes / sizes.sum()
    alike = (sizes**2).sum() - 2 * (share * sizes**2).sum() + float(share @ sizes) ** 2
    shared = within / len(residual) * alike  # what all would vary if the items of a prompt were one
    if within <= 0 or shared <= independent:
        return None
    sums = np.bincount(places, weights=kept)
    return (float((sums**2).sum()) - independent) / (shared - independent)
