"""One line per candidate and one per concept, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CandidateLine:
    """A candidate over several concepts, equally weighted.

    Attributes:
        separation: mean over concepts of the cross-fitted average precision of the best feature.
        separation_low: lower end of its 95 % interval over resampled pairs.
        separation_high: upper end.
        chance: mean over concepts of the average precision of a random order.
        tied: concepts where the candidate is the best or within the noise of it.
    """

    sae: str
    hook_point: str
    l0: float
    fvu: float
    dead_share: float
    i_cdf: float
    separation: float
    separation_low: float
    separation_high: float
    separation_top10: float
    chance: float
    mean_rank: float
    tied: int
    concepts: int


@dataclass(frozen=True)
class ConceptLine:
    """A concept over all candidates: which is best, and how many are as good within the noise."""

    concept: str
    pairs: int
    best: str
    separation: float
    separation_low: float
    separation_high: float
    chance: float
    called_features: int
    tied: int


def candidate_line(rows: Sequence[dict[str, Any]]) -> CandidateLine:
    """Sum up one candidate's rows of the rankings table, one per concept."""
    first = rows[0]
    resamples = np.array([row["separation_resamples"] for row in rows], dtype=float)
    # A concept on which no feature distinguishes anything does not vary: it stays at chance.
    value = np.array([[row["separation_best"]] for row in rows], dtype=float)
    resamples = np.where(np.isfinite(resamples), resamples, value)
    usable = np.isfinite(resamples).all(axis=1)
    low, high = (
        np.quantile(resamples[usable].mean(axis=0), [0.025, 0.975])
        if usable.any()
        else (np.nan, np.nan)
    )
    return CandidateLine(
        sae=first["sae"],
        hook_point=first["hook_point"],
        l0=first["l0"],
        fvu=first["fvu"],
        dead_share=first["dead_share"],
        i_cdf=_mean(rows, "i_cdf"),
        separation=_mean(rows, "separation_best"),
        separation_low=float(low),
        separation_high=float(high),
        separation_top10=_mean(rows, "separation_top10"),
        chance=_mean(rows, "separation_chance"),
        mean_rank=_mean(rows, "rank"),
        tied=sum(bool(row["tied_with_best"]) for row in rows),
        concepts=len(rows),
    )


def concept_line(rows: Sequence[dict[str, Any]]) -> ConceptLine | None:
    """Sum up one concept's rows; None where no candidate could be ranked on it."""
    ranked = [row for row in rows if row.get("rank") is not None]
    if not ranked:
        return None
    best = min(ranked, key=lambda row: row["rank"])
    return ConceptLine(
        concept=best["concept"],
        pairs=best["pairs"],
        best=best["sae"],
        separation=best["separation_best"],
        separation_low=best["separation_best_low"],
        separation_high=best["separation_best_high"],
        chance=best["separation_chance"],
        called_features=best["called_features"],
        tied=sum(bool(row["tied_with_best"]) for row in ranked),
    )


def _mean(rows: Sequence[dict[str, Any]], column: str) -> float:
    values = [row[column] for row in rows if row.get(column) is not None]
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
