"""Score one observed candidate on every concept and choose its features."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safesail.ranking._design import PairDesign, Role
from safesail.ranking._distinguish import Distinction, mean_interval
from safesail.ranking._separating import SeparatingFeatures, separating_features
from safesail.ranking._separation import LEAST_CLUSTERS, Separation, separate
from safesail.ranking._sorted_scores import SortedScores
from safesail.study import RankingSettings

LEAST_CHOSEN = 10
FEW_PAIRS = 10
FEW_PAIRS_WARNING = f"fewer than {FEW_PAIRS} independent pairs, so nothing here is sure"
NONE_CALLED_WARNING = (
    "its best SAE has no feature that is called at the false discovery rate; the best "
    f"{LEAST_CHOSEN} are chosen all the same"
)
UNHALVED_WARNING = (
    "fewer than four independent pairs, so no feature can be picked on one half of them and judged "
    "on the other"
)
UNEVEN_WARNING = (
    "have one text over twice as long as its twin, and length alone may tell those apart"
)
# Features whose differences over all pairs are computed together: bounds memory.
_BLOCK = 4096
# Concepts scored at once: NumPy's loops run beside each other, and each takes memory of its own.
_THREADS = 2


@dataclass(frozen=True)
class ConceptScore:
    """One candidate's numbers on one concept; meanings as in the rankings table.

    Attributes:
        i_cdf_interval: 95 % interval over the pairs.
        specificity: of the feature that is most specific on one half of the pairs, on the other.
        least_callable: the smallest f that could be called; NaN where none could.
        chosen: chosen features, best first, as rows of the features table.
    """

    role: Role
    distinction: Distinction
    i_cdf_interval: tuple[float, float]
    separating: SeparatingFeatures
    separation: Separation
    specificity: float
    called_features: int
    least_callable: float
    chosen: list[dict[str, float | int]]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Observed:
    """A candidate's activations on the pairs' texts and what follows from them for all concepts."""

    pooled: NDArray[np.float32]
    wins: NDArray[np.bool_]
    losses: NDArray[np.bool_]
    scores: SortedScores
    shares: dict[str, NDArray[np.floating]]
    specificities: dict[str, float]


def score_candidate(
    pooled: NDArray[np.float32],
    q999: NDArray[np.float32],
    design: PairDesign,
    settings: RankingSettings,
) -> list[ConceptScore]:
    """Score a candidate on every concept of the study.

    Args:
        pooled: activation of each feature on each text of the design, at least 0, [T, F].
        q999: 0.999 quantile of each feature's non-zero activations, [F].
        design: what all candidates share.
        settings: margin, false discovery rate, how many features to choose.
    """
    # The mean over a text's tokens is far below what single tokens reach.
    scale = pooled.max(0) if settings.pooling == "mean" else q999
    wins = np.zeros((len(design.positive), pooled.shape[1]), dtype=bool)
    losses = np.zeros_like(wins)
    for first in range(0, pooled.shape[1], _BLOCK):
        block = slice(first, first + _BLOCK)
        some = pooled[:, block]
        difference = some[design.positive] - some[design.negative]
        margin = settings.margin * scale[block]
        wins[:, block] = difference > margin
        losses[:, block] = -difference > margin
    observed = _Observed(
        pooled=pooled,
        wins=wins,
        losses=losses,
        scores=SortedScores.of(pooled),
        shares={name: wins[role.pairs].mean(0) for name, role in design.roles.items()},
        specificities=_specificities(wins, design),
    )
    with ThreadPoolExecutor(_THREADS) as threads:
        roles = design.roles.values()
        return list(threads.map(lambda role: _score(role, observed, design, settings), roles))


def _score(
    role: Role, observed: _Observed, design: PairDesign, settings: RankingSettings
) -> ConceptScore:
    wins = observed.wins[role.pairs]
    losses = observed.losses[role.pairs]
    distinction = Distinction.of(wins, losses, role.clusters, role.voting)
    q_values = distinction.q_values()
    called = q_values <= settings.false_discovery_rate
    return ConceptScore(
        role=role,
        distinction=distinction,
        i_cdf_interval=_i_cdf_interval(distinction, role, design),
        separating=separating_features(observed.pooled, observed.scores, role, design),
        separation=separate(observed.pooled, wins, observed.scores, role, design),
        specificity=observed.specificities[role.concept],
        called_features=int(called.sum()),
        least_callable=distinction.least_callable(settings.false_discovery_rate),
        chosen=_choose(role, observed, design, distinction, q_values, settings),
        warnings=tuple(_warnings(role, design, bool(called.any()))),
    )


def _i_cdf_interval(
    distinction: Distinction, role: Role, design: PairDesign
) -> tuple[float, float]:
    drawn = design.draws[:, design.clusters[role.pairs]]
    with np.errstate(invalid="ignore"):  # a resample may draw nothing of a child
        resampled = drawn @ distinction.by_pair / drawn.sum(1)
    return mean_interval(distinction.i_cdf, resampled, role.evidence)


def _rival_shares(role: Role, observed: _Observed, design: PairDesign) -> NDArray[np.floating]:
    """The largest f of each feature on any concept outside the branch, [F]; 0 if there is none."""
    branch = design.concepts.branch(role.concept)
    outside = [share for name, share in observed.shares.items() if name not in branch]
    if not outside:
        return np.zeros(observed.pooled.shape[1])
    rival: NDArray[np.floating] = np.max(outside, axis=0)
    return rival


def _specificities(wins: NDArray[np.bool_], design: PairDesign) -> dict[str, float]:
    """By concept: the feature with the largest specificity on one half of the pairs, on the other.

    Mean of both ways of the first split; NaN where a half holds no pair of the concept.
    """
    names = list(design.roles)
    half_of_pairs = design.halves[0][design.clusters]
    outside = np.array(
        [[other not in design.concepts.branch(name) for other in names] for name in names]
    )
    sides = []
    for side in (0, 1):
        own = [role.pairs[half_of_pairs[role.pairs] == side] for role in design.roles.values()]
        shares = np.stack(
            [wins[pairs].mean(0) if len(pairs) else np.zeros(wins.shape[1]) for pairs in own]
        )
        rivals = np.stack([shares[others].max(0, initial=0.0) for others in outside])
        sides.append((shares - rivals, [len(pairs) > 0 for pairs in own]))
    (first, in_first), (second, in_second) = sides
    return {
        name: float(second[n, first[n].argmax()] + first[n, second[n].argmax()]) / 2
        if in_first[n] and in_second[n]
        else float("nan")
        for n, name in enumerate(names)
    }


def _choose(
    role: Role,
    observed: _Observed,
    design: PairDesign,
    distinction: Distinction,
    q_values: NDArray[np.floating],
    settings: RankingSettings,
) -> list[dict[str, float | int]]:
    """Called features by average precision; where few are called, the best of those that lean.

    Where few are called (or none: few pairs), the best of those that lean towards the concept are
    chosen too, or where none does the best of all that fire, so that a user has something to look
    at; `called` tells them apart.
    """
    called = q_values <= settings.false_discovery_rate
    leaning = np.flatnonzero(called | (distinction.votes > distinction.counter_votes))
    if not len(leaning):
        leaning = np.flatnonzero(observed.pooled.max(0) > 0)
    precision = observed.scores.select(leaning).average_precision(
        role.positive * role.weight, role.weight
    )
    order = np.lexsort((-precision, ~called[leaning]))
    order = order[: min(settings.features_per_concept, max(LEAST_CHOSEN, int(called.sum())))]
    f_low, f_high = distinction.interval()
    rival = _rival_shares(role, observed, design)
    return [
        {
            "feature": int(feature),
            "f": float(distinction.f[feature]),
            "f_low": float(f_low[feature]),
            "f_high": float(f_high[feature]),
            "q_value": float(q_values[feature]),
            "called": bool(called[feature]),
            "separation": float(separation),
            "specificity": float(distinction.f[feature] - rival[feature]),
        }
        for feature, separation in zip(leaning[order], precision[order], strict=True)
    ]


def is_of_concept(warning: str) -> bool:
    """Whether a warning is one of a concept's pairs, the same for every candidate."""
    of_pairs = (FEW_PAIRS_WARNING, UNHALVED_WARNING)
    return warning in of_pairs or UNEVEN_WARNING in warning


def _warnings(role: Role, design: PairDesign, any_called: bool) -> list[str]:
    warnings = []
    if role.evidence < FEW_PAIRS:
        warnings.append(FEW_PAIRS_WARNING)
    if role.evidence < 2 * LEAST_CLUSTERS:
        warnings.append(UNHALVED_WARNING)
    if not any_called:
        warnings.append(NONE_CALLED_WARNING)
    pairs = [design.concepts.pairs[pair] for pair in role.pairs]
    uneven = [pair.where for pair in pairs if pair.is_uneven]
    if uneven:
        warnings.append(
            f"{len(uneven)} of {len(role.pairs)} pairs {UNEVEN_WARNING}: {', '.join(uneven[:3])}"
            + (" ..." if len(uneven) > 3 else "")
        )
    return warnings
