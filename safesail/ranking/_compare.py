"""Compare scored candidates: places, ties, and how often each is the best over resampled pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.errors import CandidateError
from safesail.ranking._separating import centred

Rows = Sequence[dict[str, Any]]


def compare(rows: Rows) -> None:
    """Order candidates: fill `rank`, `tied_with_best`, `best_probability` and `mean_rank`.

    Per concept by `separating_features`, those with equally many by `separation_best` (0 where too
    few pairs leave none); over concepts by the mean rank of the top-level ones: places among the
    candidates given, which other candidates can change. All share the resamples of the pairs:
    `best_probability` is the share of them in which a candidate comes first, and it is tied with
    the first when the 95 % interval of their difference over them holds zero.

    Raises:
        CandidateError: no candidate could be ranked.
    """
    healthy = {row["sae"] for row in rows if row["health"] == "ok"}
    if not healthy:
        reasons = "; ".join(sorted({f"{row['sae']}: {row['health']}" for row in rows}))
        raise CandidateError(f"no candidate could be ranked: {reasons}")
    by_concept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["sae"] in healthy:
            by_concept.setdefault(row["concept"], []).append(row)
    for members in by_concept.values():
        _compare_on_concept(members)
    ranks: dict[str, list[int]] = {name: [] for name in healthy}
    for row in rows:
        if row["sae"] in healthy and "/" not in row["concept"]:
            ranks[row["sae"]].append(row["rank"])
    for row in rows:
        if row["sae"] in healthy:
            row["mean_rank"] = float(np.mean(ranks[row["sae"]]))


def places(counts: NDArray[np.floating], precision: NDArray[np.floating]) -> NDArray[np.int64]:
    """Place of each candidate, 1 for the best, by count and then by precision; equals share one.

    Args:
        counts: separating features, [..., candidates].
        precision: average precision of the best feature, [..., candidates].
    """
    # A count weighs more than any difference of two precisions, which lie between 0 and 1.
    value = counts * 2 + np.nan_to_num(precision)
    better = value[..., None, :] > value[..., :, None]
    result: NDArray[np.int64] = 1 + better.sum(-1)
    return result


def _compare_on_concept(members: list[dict[str, Any]]) -> None:
    counts = np.array([row["separating_features"] for row in members], dtype=float)
    precision = np.array([row["separation_best"] for row in members], dtype=float)
    resampled = np.stack(
        [
            centred(row["separating_features"], np.array(row["separating_resamples"], dtype=float))
            for row in members
        ]
    )
    resampled_precision = _resamples(members, "separation_resamples")
    first = int(np.lexsort((-precision, -counts))[0])
    again = places(resampled.T, resampled_precision.T).T
    shared = (again == 1) / (again == 1).sum(0)
    leads = resampled[first] - resampled, resampled_precision[first] - resampled_precision
    for number, (row, place) in enumerate(zip(members, places(counts, precision), strict=True)):
        row["rank"] = int(place)
        row["best_probability"] = float(shared[number].mean())
        behind = [_within_noise(lead[number]) for lead in leads]
        fewer = counts[number] < counts[first]
        row["tied_with_best"] = bool(place == 1) or (behind[0] if fewer else all(behind))


def _within_noise(lead: NDArray[np.floating]) -> bool:
    """Whether the 95 % interval of a lead over the resamples holds zero; no resample, no tie."""
    known = lead[np.isfinite(lead)]
    return bool(len(known) and np.quantile(known, 0.025) <= 0)


def _resamples(members: Rows, column: str) -> NDArray[np.floating]:
    return np.array([row[column] for row in members], dtype=float)
