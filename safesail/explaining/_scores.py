"""How well simulated activations match the true ones, with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from safesail.explaining._mixture import describe_mixture, mixture_weights, stratum_of
from safesail.explaining._sample import Floats, Sample, centred, members_of
from safesail.tables import Context

Score = Literal["correlation", "discrimination"]

FIXED_LOOK = 1.959964
"""Critical value of a 95 % interval that is looked at once: the normal law's 0.975 quantile."""

# Strata of two or three windows would ask for fewer, and blow intervals up beyond their need.
_FEWEST_DEGREES_OF_FREEDOM = 4
_CERTAIN = 1e-9
# Half a window each, as of a prior of Jeffreys: with whole ones, good judges were doubted too much.
_ADDED_SIZE = 0.5


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class WindowScores:
    """Scores of one explanation's simulation.

    Attributes:
        correlation: weighted Pearson correlation over tokens, in [-1, 1].
        discrimination: weighted AUROC of window peaks, in [0, 1].
        observations: windows behind both.
        mixture: the kinds of windows that the scores refer to, with their shares.
    """

    correlation: Interval
    discrimination: Interval
    observations: int
    mixture: str


def window_scores(
    contexts: Sequence[Context], simulated: Sequence[Sequence[float] | Floats]
) -> WindowScores:
    """Score simulated activations of windows against the true ones.

    `correlation` is the weighted Pearson correlation over all tokens; a token weighs what its
    window weighs. `discrimination` is the weighted probability that the simulated peak of an
    active window exceeds that of a silent one, ties counting half. Intervals: `score_interval`.

    Args:
        contexts: windows drawn from their strata (`sample` is `random`); at least one.
        simulated: per context as many predictions as tokens, on any scale.

    Returns:
        The scores. A constant prediction or a constant truth leaves the correlation undefined
        (NaN); a constant prediction has a discrimination of 0.5. Without active or without silent
        windows the discrimination is undefined.
    """
    # A fixed order: where windows tie, the same one is typical, whatever order they came in.
    order = sorted(range(len(contexts)), key=lambda i: (contexts[i].document, contexts[i].start))
    contexts = [contexts[i] for i in order]
    strata = [stratum_of(context) for context in contexts]
    sample = Sample(
        [np.asarray(context.activations, dtype=float) for context in contexts],
        [np.asarray(simulated[i], dtype=float) for i in order],
        mixture_weights(contexts),
        strata,
        [context.document for context in contexts],
    )
    return WindowScores(
        correlation=score_interval("correlation", sample),
        discrimination=score_interval("discrimination", sample),
        observations=len(contexts),
        mixture=describe_mixture(strata),
    )


def score_interval(
    score: Score,
    sample: Sample,
    *,
    critical_value: float = FIXED_LOOK,
    design_effect: float = 1.0,
) -> Interval:
    """A score of a sample with its interval.

    The standard error is that of the delta method, from what each window contributes: for the
    correlation r a token contributes x y - r (x² + y²) / 2, with x and y the standardised values
    (the influence function of r: Devlin, Gnanadesikan and Kettenring 1975), for the
    discrimination these are the structural components of DeLong, DeLong and Clarke-Pearson
    (1988). Contributions are centred within strata, whose sizes are fixed, and summed by
    document, as windows of one document go together.

    A sample without a mistake, or without a hit, says little of how rare those are, and the delta
    method takes it for certainty. So intervals know of a few windows more.

    - discrimination: half a hit, half a miss, half a rightly silent window and half a false
      alarm. For two grades that is the interval of Agresti and Caffo (2000) for a difference of
      proportions, half of which the AUROC then is, with halves for their ones; beyond them it is
      our choice. The interval is symmetric on the AUROC's own scale and cut at 0 and 1 (on the
      logit scale it covered less), and widened to hold the sample's own value.
    - correlation: joined with the intervals of the sample with a miss and a false alarm; with two
      hits and two rightly silent windows (the thought of Agresti and Coull 1998 for proportions).
      The interval is symmetric on Fisher's z, with Student's quantile at Satterthwaite's degrees
      of freedom, at least 4.

    Args:
        score: which one.
        sample: the windows.
        critical_value: standard errors in half an interval.
        design_effect: factor of the variance for what makes windows err together beyond their
            documents.
    """
    plain, _ = _ESTIMATES[score](sample)
    if math.isnan(plain) or sample.active.all() or not sample.active.any():
        return _around(score, sample, critical_value, design_effect)
    if score == "discrimination":
        samples = [sample.with_more(hits=1, mistakes=1, size=_ADDED_SIZE)]
    else:
        more = sample.with_more(hits=2, mistakes=0), sample.with_more(hits=0, mistakes=1)
        samples = [sample, *more]
    intervals = [_around(score, one, critical_value, design_effect) for one in samples]
    return Interval(
        plain,
        min(plain, *(one.low for one in intervals)),
        max(plain, *(one.high for one in intervals)),
    )


def _around(score: Score, sample: Sample, critical_value: float, design_effect: float) -> Interval:
    """The delta method's interval of a sample as it is."""
    value, influence = _ESTIMATES[score](sample)
    if math.isnan(value):
        return Interval(value, value, value)
    error, degrees = _standard_error(influence, sample)
    error *= math.sqrt(design_effect)
    if score == "discrimination":
        half = critical_value * error
        return Interval(value, max(value - half, 0.0), min(value + half, 1.0))
    if 1 - abs(value) < _CERTAIN:
        return Interval(value, value, value)
    quantile = float(special.stdtrit(degrees, special.ndtr(critical_value)))
    z, half = math.atanh(value), quantile * error / (1 - value**2)
    return Interval(value, math.tanh(z - half), math.tanh(z + half))


def influences(score: Score, sample: Sample) -> Floats | None:
    """What each window contributes to the score's error, shape (windows,); None if undefined."""
    value, influence = _ESTIMATES[score](sample)
    return None if math.isnan(value) else influence


def _correlation(sample: Sample) -> tuple[float, Floats]:
    """Weighted Pearson correlation over tokens, and the windows' influences."""
    lengths = [len(one) for one in sample.true]
    influence = np.zeros(len(lengths))
    window = np.repeat(np.arange(len(lengths)), lengths)
    share = sample.weights[window] / sample.weights[window].sum()
    x = _standardised(np.concatenate(sample.simulated), share)
    y = _standardised(np.concatenate(sample.true), share)
    if x is None or y is None:
        return math.nan, influence
    r = float(np.clip(share @ (x * y), -1.0, 1.0))
    np.add.at(influence, window, share * (x * y - r * (x**2 + y**2) / 2))
    return r, influence


def _standardised(values: Floats, share: Floats) -> Floats | None:
    """Values with weighted mean 0 and variance 1; None where they are constant."""
    if np.ptp(values) == 0:
        return None
    centred = values - share @ values
    return centred / math.sqrt(share @ centred**2)


def _discrimination(sample: Sample) -> tuple[float, Floats]:
    """Weighted AUROC of window peaks, and the windows' influences."""
    active, peaks = sample.active, sample.peaks
    influence = np.zeros(len(peaks))
    if active.all() or not active.any():
        return math.nan, influence
    active_share = sample.weights[active] / sample.weights[active].sum()
    silent_share = sample.weights[~active] / sample.weights[~active].sum()
    beaten = _share_below(peaks[active], peaks[~active], silent_share)
    beating = 1 - _share_below(peaks[~active], peaks[active], active_share)
    area = float(np.clip(active_share @ beaten, 0.0, 1.0))
    influence[active] = active_share * (beaten - area)
    influence[~active] = silent_share * (beating - area)
    return area, influence


_ESTIMATES = {"correlation": _correlation, "discrimination": _discrimination}


def _share_below(values: Floats, others: Floats, share: Floats) -> Floats:
    """For each value the share of others below it, ties counting half; shape (values,)."""
    order = np.argsort(others)
    cumulative = np.concatenate([[0.0], np.cumsum(share[order])])
    below = np.searchsorted(others[order], values, side="left")
    not_above = np.searchsorted(others[order], values, side="right")
    return (cumulative[below] + cumulative[not_above]) / 2


def _standard_error(influence: Floats, sample: Sample) -> tuple[float, float]:
    """Standard error of a sum of window contributions, weights included; degrees of freedom."""
    residual = centred(influence, sample.strata, sample.weights)
    members = members_of(sample.strata)
    freedom = {stratum: len(indices) - 1 for stratum, indices in members.items()}
    for stratum, indices in members.items():
        if freedom[stratum] > 0:
            residual[indices] *= math.sqrt(len(indices) / freedom[stratum])
    count, size = sample.added
    if count:  # a share of a window has that share of a whole one's variance
        residual[-count:] /= math.sqrt(size)
    by_document: dict[str, float] = defaultdict(float)
    for document, value in zip(sample.documents, residual, strict=True):
        by_document[document] += value
    deviation = math.sqrt(sum(value**2 for value in by_document.values()))
    variances = {stratum: float((residual[of] ** 2).sum()) for stratum, of in members.items()}
    doubt = sum(variances[stratum] ** 2 / count for stratum, count in freedom.items() if count)
    estimated = sum(variances.values()) ** 2 / doubt if doubt > 0 else math.inf
    most = len(by_document) - sum(count > 0 for count in freedom.values())
    return deviation, max(min(estimated, most), _FEWEST_DEGREES_OF_FREEDOM)
