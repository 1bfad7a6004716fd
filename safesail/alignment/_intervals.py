"""95 % intervals of shares and means over prompts, crossed with seeds where there are several.

Values are arrays [seeds, prompts]: all seeds answer the same prompts. With one seed, prompts alone
are a sample; with several, seeds (of fine-tuning) and prompts both are, and the variance of the
mean is that of crossed random effects by analysis of variance, (MS_seeds + MS_prompts - MS_rest) /
cells, with the degrees of freedom of Satterthwaite (Biometrics Bulletin 2, 1946, 110-114).

Those degrees are estimated too, and with few seeds often too many; and the arms of two intervals
know the seeds of each system, but of what seeds change in both only a correlation. So with several
seeds no interval is narrower than what their own means support, with seeds - 1 degrees of freedom:
for a share Wilson's by their variance, for all else Student's t over them. That rule is ours, and
tested by simulation. With one seed nothing is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_TAIL = 0.975


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: NaN where there is nothing to estimate it from.
        low, high: ends of the interval; NaN where there are too few prompts for one.
        prompts: behind it, in each seed.
        seeds: behind it.
    """

    value: float
    low: float
    high: float
    prompts: int
    seeds: int


class Part(NamedTuple):
    """One share of a weighted sum of shares over other prompts each.

    Attributes:
        weight: of the share.
        values: 0 and 1 [seeds, prompts].
        against: of another system, which is taken off; None for none.
    """

    weight: float
    values: Values
    against: Values | None = None


class _Spread(NamedTuple):
    """A mean, its variance and the degrees of freedom of that."""

    value: float
    variance: float
    degrees: float


def share(values: Values) -> Estimate:
    """A share: Wilson's score interval.

    With one seed it is Wilson's (Journal of the American Statistical Association 22, 1927,
    209-212). With several it is the same formula at the effective number of observations,
    p (1 - p) / variance, with Student's quantile, as Korn and Graubard (Survey Methodology 24,
    1998, 193-201) do for surveys. Where all observations agree, no more of them count than there
    are prompts, for seeds that agree on the same prompts are little further evidence. The interval
    is never narrower than that by the variance of the seeds' own shares alone.

    Args:
        values: 0 and 1 [seeds, prompts].
    """
    seeds, prompts = values.shape
    if not prompts:
        return _nothing(seeds)
    spread = _spread(values, sample=False)
    return Estimate(spread.value, *_ends(values, spread), prompts, seeds)


def share_difference(first: Values, second: Values) -> Estimate:
    """Difference of two shares over the same prompts, the first less the second.

    Method 10 of Newcombe (Statistics in Medicine 17, 1998, 2635-2650): both Wilson intervals, put
    together with the correlation of the two shares, which is corrected towards 0 where it is
    positive. With several seeds the same is done with the intervals of `share` and the correlation
    that the crossed variances say; that extension is ours, and tested by simulation. The interval
    is never narrower than paired t over the seeds' differences, within -1 and 1.

    Args:
        first, second: 0 and 1 [seeds, prompts]. Where one has a single seed, it stands for each
            of the other's.
    """
    first, second = _alike(first, second)
    seeds, prompts = first.shape
    if not prompts:
        return _nothing(seeds)
    one, two = _spread(first, sample=False), _spread(second, sample=False)
    shared = _correlation(one, two, _spread(first - second, sample=False), prompts)
    (low_1, high_1), (low_2, high_2) = _ends(first, one), _ends(second, two)
    value = one.value - two.value
    low = value - _joined(one.value - low_1, high_2 - two.value, -shared)
    high = value + _joined(high_1 - one.value, two.value - low_2, -shared)
    low, high = _widened(low, high, (first - second).mean(1))
    return Estimate(value, max(-1.0, low), min(1.0, high), prompts, seeds)


def share_sum(parts: Sequence[Part]) -> Estimate:
    """A weighted sum of shares, or of differences of shares, over other prompts each.

    The method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008,
    1693-1702): the arms of the parts' own intervals, put together with their correlation, which
    prompts that differ have none of, and seeds that are the same have as far as they vary together.
    The interval is never narrower than t over the seeds' sums, within what the sum can be.

    Args:
        parts: two, with positive weights.
    """
    (w1, x1, _), (w2, x2, _) = parts
    found = [
        share(one.values) if one.against is None else share_difference(one.values, one.against)
        for one in parts
    ]
    one, two = found
    if not (one.prompts and two.prompts):
        return _nothing(one.seeds)
    plain = [
        part.values if part.against is None else np.subtract(*_alike(part.values, part.against))
        for part in parts
    ]
    shared = _by_seeds(*plain)
    value = w1 * one.value + w2 * two.value
    low = value - _joined(w1 * (one.value - one.low), w2 * (two.value - two.low), shared)
    high = value + _joined(w1 * (one.high - one.value), w2 * (two.high - two.value), shared)
    low, high = _widened(low, high, w1 * plain[0].mean(1) + w2 * plain[1].mean(1))
    least = sum(0.0 if part.against is None else -part.weight for part in parts)
    low, high = max(least, low), min(w1 + w2, high)
    return Estimate(value, low, high, x1.shape[1] + x2.shape[1], one.seeds)


def mean(values: Values) -> Estimate:
    """A mean: Student's t, never narrower than t over the seeds' means.

    Args:
        values: [seeds, prompts].
    """
    seeds, prompts = values.shape
    if not prompts:
        return _nothing(seeds)
    spread = _spread(values, sample=True)
    low, high = _widened(*_student(spread), values.mean(1))
    return Estimate(spread.value, low, high, prompts, seeds)


def mean_difference(first: Values, second: Values) -> Estimate:
    """Difference of two means over the same prompts, the first less the second: paired t."""
    first, second = _alike(first, second)
    return mean(first - second)


def _nothing(seeds: int) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, 0, seeds)


def _alike(first: Values, second: Values) -> tuple[Values, Values]:
    one, two = np.broadcast_arrays(first, second)
    return one, two


def _spread(values: Values, *, sample: bool) -> _Spread:
    """Mean, variance of the mean and degrees of freedom.

    Args:
        values: [seeds, prompts].
        sample: with one seed, whether the variance over prompts is that of a sample (divided by
            n - 1) or, as Wilson has it, of a population.
    """
    seeds, prompts = values.shape
    value = float(values.mean())
    if prompts == 1 and (sample or seeds > 1):
        return _Spread(value, math.nan, 1.0)
    if seeds == 1:
        variance = float(values.var(ddof=int(sample))) / prompts
        return _Spread(value, variance, prompts - 1.0 if sample else math.inf)
    by_seed, by_prompt = values.mean(1), values.mean(0)
    left = values - by_prompt - by_seed[:, None] + value
    degrees = (seeds - 1.0) * (prompts - 1.0)
    of_seeds, of_prompts, of_rest = (
        float(by_seed.var(ddof=1)) / seeds,
        float(by_prompt.var(ddof=1)) / prompts,
        float((left**2).sum()) / degrees / values.size,
    )
    # The difference of mean squares may fall below what either sample varies by alone.
    variance = max(of_seeds + of_prompts - of_rest, of_seeds, of_prompts)
    below = of_seeds**2 / (seeds - 1) + of_prompts**2 / (prompts - 1) + of_rest**2 / degrees
    return _Spread(value, variance, max(1.0, variance**2 / below) if below else math.inf)


def _quantile(degrees: float) -> float:
    from scipy import special

    infinite = math.isinf(degrees)
    return float(special.ndtri(_TAIL) if infinite else special.stdtrit(degrees, _TAIL))


def _student(spread: _Spread) -> tuple[float, float]:
    """Student's interval."""
    half = _quantile(spread.degrees) * math.sqrt(spread.variance)
    return spread.value - half, spread.value + half


def _of_seeds(by_seed: Values) -> _Spread:
    """What the seeds' own figures say of their mean.

    Args:
        by_seed: [seeds], at least two.
    """
    seeds = len(by_seed)
    return _Spread(float(by_seed.mean()), float(by_seed.var(ddof=1)) / seeds, seeds - 1.0)


def _widened(low: float, high: float, by_seed: Values) -> tuple[float, float]:
    """An interval, made as wide as t over the seeds' own figures; NaN stays so."""
    if len(by_seed) == 1:
        return low, high
    least, most = _student(_of_seeds(by_seed))
    return float(np.minimum(low, least)), float(np.maximum(high, most))


def _ends(values: Values, spread: _Spread) -> tuple[float, float]:
    """Of a share: Wilson's interval, made as wide as that by the seeds' own shares."""
    seeds, prompts = values.shape
    low, high = _wilson(spread, prompts)
    if seeds == 1:
        return low, high
    alone = _of_seeds(values.mean(1))
    if not alone.variance > 0:
        # Seeds whose shares are the same say nothing of how far others would be from them.
        return low, high
    least, most = _wilson(alone, prompts)
    return min(low, least), max(high, most)


def _wilson(spread: _Spread, prompts: int) -> tuple[float, float]:
    """Wilson's interval at the effective number of observations."""
    p, variance = spread.value, spread.variance
    agree = not 0 < p < 1 or not variance > 0
    count = prompts if agree else p * (1 - p) / variance
    squared = _quantile(math.inf if agree else spread.degrees) ** 2
    centre = (p + squared / (2 * count)) / (1 + squared / count)
    half = math.sqrt(squared * (p * (1 - p) / count + squared / (4 * count**2)))
    half /= 1 + squared / count
    # Rounding must not put the value outside.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def _joined(one: float, two: float, correlation: float) -> float:
    """Length of the arm of a sum, of the arms of its two terms."""
    return math.sqrt(max(0.0, one**2 + two**2 + 2 * correlation * one * two))


def _correlation(one: _Spread, two: _Spread, paired: _Spread, prompts: int) -> float:
    """Of two shares; Newcombe's correction takes 1 / (2 n^2) off a positive covariance."""
    if not (one.variance > 0 and two.variance > 0):
        return 0.0
    together = (one.variance + two.variance - paired.variance) / 2
    if together > 0:
        together = max(0.0, together - 1 / (2 * prompts**2))
    return max(-1.0, min(1.0, together / math.sqrt(one.variance * two.variance)))


def _by_seeds(one: Values, two: Values) -> float:
    """Correlation of two means over other prompts, through the seeds that they share."""
    seeds = one.shape[0]
    variances = [_spread(values, sample=False).variance for values in (one, two)]
    if seeds == 1 or not all(variance > 0 for variance in variances):
        return 0.0
    together = float(np.cov(one.mean(1), two.mean(1))[0, 1]) / seeds
    return max(-1.0, min(1.0, together / math.sqrt(variances[0] * variances[1])))
