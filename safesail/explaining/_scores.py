"""How well simulated activations match the true ones, with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from safesail.explaining._mixture import Stratum, describe_mixture, mixture_weights, stratum_of
from safesail.tables import Context

Floats = NDArray[np.float64]

_CONFIDENCE = 0.95
# Windows added in thought, see `window_scores`: with one hit, intervals of useless explanations
# still held the truth only 89 times in 100; a second mistake only made good ones wider.
_ADDED_HITS, _ADDED_MISTAKES = 2, 1
# Strata of two or three windows would ask for fewer, and blow intervals up beyond their need.
_FEWEST_DEGREES_OF_FREEDOM = 4


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


_UNDEFINED = Interval(math.nan, math.nan, math.nan)


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


@dataclass(frozen=True)
class _Windows:
    """Windows as arrays; `weights` sum to 1."""

    true: list[Floats]
    simulated: list[Floats]
    weights: Floats
    strata: list[Stratum]
    documents: list[str]

    @property
    def active(self) -> NDArray[np.bool_]:
        return np.array([kind == "active" for kind, _ in self.strata])

    @property
    def peaks(self) -> Floats:
        return np.array([max(one, default=0.0) for one in self.simulated])

    def with_more(self, *, right: bool, pairs: int) -> _Windows:
        """The same with pairs of an active and a silent window more, at their sides' mean weight.

        The active one is the sampled one of median peak. It is predicted in proportion to the
        truth and the silent one as silent (`right`), or the other way round: a missed window and
        a false alarm.
        """
        active = np.flatnonzero(self.active)
        order = np.argsort([self.true[index].max() for index in active], kind="stable")
        typical = self.true[active[order[len(order) // 2]]]
        values = np.concatenate(self.simulated)
        quiet = np.full(len(typical), values.min())
        strongest = max(float(one.max()) for one in self.true) or 1.0
        loud = quiet + np.ptp(values) * typical / strongest
        added = [float(self.weights[side].mean()) for side in (self.active, ~self.active)] * pairs
        weights = np.array([*self.weights, *added])
        return _Windows(
            [*self.true, *[typical, np.zeros(len(typical))] * pairs],
            [*self.simulated, *([loud, quiet] if right else [quiet, loud]) * pairs],
            weights / weights.sum(),
            # Strata and documents of their own: they are no part of any sample.
            self.strata + [(kind, -1 - n) for n in range(pairs) for kind in ("active", "silent")],
            self.documents + [f"added {n}" for n in range(2 * pairs)],
        )


def window_scores(
    contexts: Sequence[Context], simulated: Sequence[Sequence[float] | Floats]
) -> WindowScores:
    """Score simulated activations of windows against the true ones.

    `correlation` is the weighted Pearson correlation over all tokens; a token weighs what its
    window weighs. Its interval is the delta method on Fisher's z: a token contributes
    x y - r (x² + y²) / 2, with x and y the standardised values (the influence function of r:
    Devlin, Gnanadesikan and Kettenring 1975). `discrimination` is the weighted probability that
    the simulated peak of an active window exceeds that of a silent one, ties counting half; its
    interval is the delta method on the logit, from the structural components of DeLong, DeLong
    and Clarke-Pearson (1988). Either way the contributions are centred within strata, whose sizes
    are fixed, and summed by document, as windows of one document go together. Quantiles are
    Student's, with Satterthwaite's degrees of freedom for the sum over strata, at least 4.

    A sample without a mistake, or without a hit, says little of how rare those are, and the delta
    method takes it for certainty. So each interval is joined with those of the same sample with a
    few windows more: a missed one and a false alarm; two hits and two rightly silent ones (the
    thought of Agresti and Coull 1998 for proportions). Coverage was then at least 92 in 100
    at 100 and at 200 windows, for simulations from perfect to random (tests/explaining).

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
    windows = _Windows(
        [np.asarray(context.activations, dtype=float) for context in contexts],
        [np.asarray(simulated[i], dtype=float) for i in order],
        mixture_weights(contexts),
        [stratum_of(context) for context in contexts],
        [context.document for context in contexts],
    )
    return WindowScores(
        correlation=_cautious(_correlation, windows),
        discrimination=_cautious(_discrimination, windows),
        observations=len(contexts),
        mixture=describe_mixture(contexts),
    )


def _cautious(score: Callable[[_Windows], Interval], windows: _Windows) -> Interval:
    plain = score(windows)
    if math.isnan(plain.value) or windows.active.all() or not windows.active.any():
        return plain
    with_hits = score(windows.with_more(right=True, pairs=_ADDED_HITS))
    with_mistakes = score(windows.with_more(right=False, pairs=_ADDED_MISTAKES))
    three = (plain, with_hits, with_mistakes)
    return Interval(plain.value, min(one.low for one in three), max(one.high for one in three))


def _correlation(windows: _Windows) -> Interval:
    lengths = [len(one) for one in windows.true]
    window = np.repeat(np.arange(len(lengths)), lengths)
    share = windows.weights[window] / windows.weights[window].sum()
    x = _standardised(np.concatenate(windows.simulated), share)
    y = _standardised(np.concatenate(windows.true), share)
    if x is None or y is None:
        return _UNDEFINED
    r = float(np.clip(share @ (x * y), -1.0, 1.0))
    if 1 - abs(r) < 1e-9:
        return Interval(r, r, r)
    influence = np.zeros(len(lengths))
    np.add.at(influence, window, share * (x * y - r * (x**2 + y**2) / 2))
    half = _half_width(influence, windows) / (1 - r**2)
    z = math.atanh(r)
    return Interval(r, math.tanh(z - half), math.tanh(z + half))


def _standardised(values: Floats, share: Floats) -> Floats | None:
    """Values with weighted mean 0 and variance 1; None where they are constant."""
    if np.ptp(values) == 0:
        return None
    centred = values - share @ values
    return centred / math.sqrt(share @ centred**2)


def _discrimination(windows: _Windows) -> Interval:
    active, peaks = windows.active, windows.peaks
    if active.all() or not active.any():
        return _UNDEFINED
    active_share = windows.weights[active] / windows.weights[active].sum()
    silent_share = windows.weights[~active] / windows.weights[~active].sum()
    beaten = _share_below(peaks[active], peaks[~active], silent_share)
    beating = 1 - _share_below(peaks[~active], peaks[active], active_share)
    area = float(np.clip(active_share @ beaten, 0.0, 1.0))
    if min(area, 1 - area) < 1e-9:
        return Interval(area, area, area)
    influence = np.empty(len(peaks))
    influence[active] = active_share * (beaten - area)
    influence[~active] = silent_share * (beating - area)
    half = _half_width(influence, windows) / (area * (1 - area))
    logit = special.logit(area)
    return Interval(area, float(special.expit(logit - half)), float(special.expit(logit + half)))


def _share_below(values: Floats, others: Floats, share: Floats) -> Floats:
    """For each value the share of others below it, ties counting half; shape (values,)."""
    order = np.argsort(others)
    cumulative = np.concatenate([[0.0], np.cumsum(share[order])])
    below = np.searchsorted(others[order], values, side="left")
    not_above = np.searchsorted(others[order], values, side="right")
    return (cumulative[below] + cumulative[not_above]) / 2


def _half_width(influence: Floats, windows: _Windows) -> float:
    """Half-width of the interval of a sum of window contributions, weights included."""
    members: dict[Stratum, list[int]] = defaultdict(list)
    for index, stratum in enumerate(windows.strata):
        members[stratum].append(index)
    residual = influence.copy()
    freedom = {stratum: len(indices) - 1 for stratum, indices in members.items()}
    for stratum, indices in members.items():
        if freedom[stratum] > 0:  # a single window has no mean to vary about: left as it is
            weights = windows.weights[indices]
            centred = influence[indices] - weights * influence[indices].sum() / weights.sum()
            residual[indices] = centred * math.sqrt(len(indices) / freedom[stratum])
    by_document: dict[str, float] = defaultdict(float)
    for document, value in zip(windows.documents, residual, strict=True):
        by_document[document] += value
    deviation = math.sqrt(sum(value**2 for value in by_document.values()))
    variances = {stratum: float((residual[of] ** 2).sum()) for stratum, of in members.items()}
    doubt = sum(variances[stratum] ** 2 / count for stratum, count in freedom.items() if count)
    estimated = sum(variances.values()) ** 2 / doubt if doubt > 0 else math.inf
    most = len(by_document) - sum(count > 0 for count in freedom.values())
    degrees = max(min(estimated, most), _FEWEST_DEGREES_OF_FREEDOM)
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, degrees)) * deviation
