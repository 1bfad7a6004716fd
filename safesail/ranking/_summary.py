"""One line per candidate and one per concept, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.ranking._compare import places
from safesail.ranking._score import FEW_PAIRS
from safesail.ranking._separating import centred, count_interval
from safesail.ranking._separation import mean_share_interval

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class CandidateLine:
    """A candidate over several concepts, equally weighted.

    Attributes:
        separating: separating features of all concepts together.
        separating_low: lower end of its 95 % interval over resampled pairs.
        separating_high: upper end.
        separation: mean over concepts of the cross-fitted average precision of the best feature.
        separation_low: lower end of its 95 % interval over resampled pairs.
        separation_high: upper end.
        chance: mean over concepts of the average precision of a random order.
        best_probability: share of the resamples in which its mean rank is the first.
        tied: whether its mean rank is within the noise of the first one's.
    """

    sae: str
    hook_point: str
    width: int
    l0: float
    fvu: float
    dead_share: float
    i_cdf: float
    separating: int
    separating_low: float
    separating_high: float
    separation: float
    separation_low: float
    separation_high: float
    chance: float
    mean_rank: float
    best_probability: float
    tied: bool
    concepts: int


@dataclass(frozen=True)
class ConceptLine:
    """A concept over all candidates: which is best, and how many are as good within the noise."""

    concept: str
    pairs: int
    independent_pairs: int
    best: str
    separating: int
    separating_low: float
    separating_high: float
    separation: float
    separation_low: float
    separation_high: float
    chance: float
    called_features: int
    least_callable_f: float
    best_probability: float
    tied: int
    few_pairs: bool


def candidate_lines(candidates: Sequence[Rows]) -> list[CandidateLine]:
    """Sum up candidates, best first, each from its rows of the rankings table, one per concept."""
    if not candidates:
        return []
    counts = np.array(
        [[centred(row["separating_features"], _counts(row)) for row in rows] for rows in candidates]
    )
    precision = np.array([[_precision(row) for row in rows] for rows in candidates])
    # [candidates, concepts, resamples] -> mean over concepts of the places, [candidates, resamples]
    mean_places = places(counts.T, precision.T).T.mean(axis=1)
    first = mean_places == mean_places.min(axis=0)
    probability = (first / first.sum(axis=0)).mean(axis=1)
    behind = np.quantile(mean_places - mean_places[0], 0.025, axis=1)
    return [
        _candidate_line(rows, float(probability[place]), bool(behind[place] <= 0))
        for place, rows in enumerate(candidates)
    ]


def concept_line(rows: Rows) -> ConceptLine | None:
    """Sum up one concept's rows; None where no candidate could be ranked on it."""
    ranked = [row for row in rows if row.get("rank") is not None]
    if not ranked:
        return None
    best = min(ranked, key=lambda row: row["rank"])
    return ConceptLine(
        concept=best["concept"],
        pairs=best["pairs"],
        independent_pairs=best["independent_pairs"],
        best=best["sae"],
        separating=best["separating_features"],
        separating_low=best["separating_features_low"],
        separating_high=best["separating_features_high"],
        separation=best["separation_best"],
        separation_low=best["separation_best_low"],
        separation_high=best["separation_best_high"],
        chance=best["separation_chance"],
        called_features=best["called_features"],
        least_callable_f=best["least_callable_f"],
        best_probability=best["best_probability"],
        tied=sum(bool(row["tied_with_best"]) for row in ranked),
        few_pairs=best["independent_pairs"] < FEW_PAIRS,
    )


def _candidate_line(rows: Rows, best_probability: float, tied: bool) -> CandidateLine:
    first = rows[0]
    total = sum(row["separating_features"] for row in rows)
    fewest, most = count_interval(total, np.sum([_counts(row) for row in rows], axis=0))
    judged = [row for row in rows if np.isfinite(row["separation_best"])]
    low, high = mean_share_interval(
        [row["separation_best"] for row in judged],
        np.array([row["separation_resamples"] for row in judged], dtype=float),
        [row["independent_pairs"] for row in judged],
    )
    return CandidateLine(
        sae=first["sae"],
        hook_point=first["hook_point"],
        width=first["width"],
        l0=first["l0"],
        fvu=first["fvu"],
        dead_share=first["dead_share"],
        i_cdf=_mean(rows, "i_cdf"),
        separating=total,
        separating_low=fewest,
        separating_high=most,
        separation=_mean(rows, "separation_best"),
        separation_low=low,
        separation_high=high,
        chance=_mean(rows, "separation_chance"),
        mean_rank=_mean(rows, "rank"),
        best_probability=best_probability,
        tied=tied,
        concepts=len(rows),
    )


def _counts(row: dict[str, Any]) -> NDArray[np.floating]:
    return np.array(row["separating_resamples"], dtype=float)


def _precision(row: dict[str, Any]) -> NDArray[np.floating]:
    """A row's resamples; where a concept has none, its value, which then does not vary."""
    values = np.array(row["separation_resamples"], dtype=float)
    value = float(row["separation_best"]) if np.isfinite(row["separation_best"]) else 0.0
    result: NDArray[np.floating] = np.where(np.isfinite(values), values, value)
    return result


def _mean(rows: Rows, column: str) -> float:
    values = [row[column] for row in rows if row.get(column) is not None]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
