"""Means over features and shares of items, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy import special

from safesail.explaining._scores import FIXED_LOOK, Interval

_UNKNOWN = Interval(math.nan, math.nan, math.nan)


def mean_interval(figures: Sequence[Interval]) -> Interval:
    """Mean with Student's t interval, cut at 0 and 1.

    Figures that agree have no spread, which is no certainty: each is known only so well. So, by our
    choice, the interval is at least as wide as the figures' own ones make it: the root of the sum
    of their squared half-widths over their number, those of independent figures.

    Args:
        figures: those whose value is NaN are left out; a single one has no interval.
    """
    known = [one for one in figures if not math.isnan(one.value)]
    if not known:
        return _UNKNOWN
    values = [one.value for one in known]
    mean = fmean(values)
    if len(known) == 1:
        return Interval(mean, math.nan, math.nan)
    spread = _student(len(known)) * float(np.std(values, ddof=1)) / math.sqrt(len(known))
    # Where an end was cut at 0 or 1, the other one tells the width.
    own = math.hypot(*(max(one.high - one.value, one.value - one.low) for one in known))
    half = max(spread, own / len(known))
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))


def share_interval(hits: Sequence[int], counts: Sequence[int]) -> Interval:
    """A share of items that were graded in prompts, with Wilson's interval.

    Errors of one prompt go together, so that n items are worth n divided by the design effect
    (Kish 1965): the variance of the ratio estimator with prompts as clusters over that of as many
    independent items. Wilson's interval with that effective sample size is what Franco, Little,
    Louis and Slud (2019) recommend for complex samples; they also found it too narrow for clustered
    ones where the design effect is this estimate. So the design effect is at least 1, and Student's
    quantile with a degree of freedom less than there are prompts stands for the normal one; both
    are our choice.

    Args:
        hits: per prompt, how many items are in question.
        counts: per prompt, out of how many.
    """
    cases = [(h, n) for h, n in zip(hits, counts, strict=True) if n]
    if not cases:
        return _UNKNOWN
    hit, size = np.array(cases, dtype=float).T
    clusters, total = len(cases), float(size.sum())
    share = float(hit.sum()) / total
    effect = 1.0
    if clusters > 1 and 0 < share < 1:
        variance = clusters / (clusters - 1) * float(((hit - share * size) ** 2).sum()) / total**2
        effect = max(1.0, variance / (share * (1 - share) / total))
    quantile = _student(clusters) if clusters > 1 else FIXED_LOOK
    worth, square = total / effect, quantile**2
    centre = (share + square / (2 * worth)) / (1 + square / worth)
    spread = math.sqrt(share * (1 - share) / worth + square / (4 * worth**2))
    half = quantile * spread / (1 + square / worth)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _student(count: int) -> float:
    """Student's 0.975 quantile with a degree of freedom less than there are values."""
    return float(special.stdtrit(count - 1, special.ndtr(FIXED_LOOK)))
