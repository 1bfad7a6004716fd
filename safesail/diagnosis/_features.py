"""Explained features of an SAE, from the rows of a study's tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safesail.tables import explained_by, explanation_rank

Row = Mapping[str, Any]
LabelledBy = Literal["judge", "choice"]


@dataclass(frozen=True)
class ExplainedFeature:
    """A feature with what the study says of it.

    Attributes:
        sae: name of its SAE.
        layer: block of the language model that the SAE's hook point belongs to.
        feature: its index in the SAE.
        q999: 0.999 quantile of its activations above zero, on the collected corpus.
        explanation: what it responds to; None where nobody could say.
        explained_by: the judge's model, `lexical`, the source of an import, or a person.
        status: of its row of the explanations table.
        concepts: those that it belongs to, with their ancestors.
        labelled_by: who says so: `judge` (the concepts that the judge assigned; perhaps none), or
            `choice` (the concept that it separates best, of those it was chosen and called for).
        discrimination: AUROC of the explanation on held-out text; None where it has no score.
        discrimination_low: lower end of its 95 % interval.
        discrimination_high: upper end of its 95 % interval.
    """

    sae: str
    layer: int
    feature: int
    q999: float
    explanation: str | None
    explained_by: str
    status: str
    concepts: tuple[str, ...]
    labelled_by: LabelledBy
    discrimination: float | None
    discrimination_low: float | None
    discrimination_high: float | None


def explained_features(
    explanations: Iterable[Row], features: Iterable[Row], language: str | None = None
) -> tuple[list[ExplainedFeature], list[int]]:
    """Features of one SAE, ascending, each with its best explanation.

    Of several explanations of a feature the best counts: see `tables.explanation_rank`.

    Args:
        explanations: rows of the explanations table.
        features: rows of the features table.
        language: that is wanted; None for any.

    Returns:
        The features, and the indices of those left out because they have no q999: they never
        fired where features were collected.
    """
    chosen: dict[int, list[Row]] = {}
    for row in features:
        chosen.setdefault(row["feature"], []).append(row)
    best: dict[int, Row] = {}
    for row in explanations:
        known = best.get(row["feature"])
        rank = explanation_rank(row, language)
        if known is None or rank > explanation_rank(known, language):
            best[row["feature"]] = row
    found, left_out = [], []
    for feature in sorted(best):
        rows = chosen.get(feature, [])
        q999 = rows[0]["q999"] if rows else None
        if q999 is None or not math.isfinite(q999) or q999 <= 0:
            left_out.append(feature)
        else:
            found.append(_explained(best[feature], rows, q999))
    return found, left_out


def _explained(row: Row, chosen: Sequence[Row], q999: float) -> ExplainedFeature:
    labels = row["judge_concepts"]
    labelled_by: LabelledBy = "judge"
    if labels is None:
        labels, labelled_by = best_concepts(chosen), "choice"
    scores = {
        name: value if (value := row[name]) is not None and math.isfinite(value) else None
        for name in ("discrimination", "discrimination_low", "discrimination_high")
    }
    return ExplainedFeature(
        sae=row["sae"],
        layer=row["layer"],
        feature=row["feature"],
        q999=q999,
        explanation=row["explanation"],
        explained_by=explained_by(row),
        status=row["status"],
        concepts=with_ancestors(labels),
        labelled_by=labelled_by,
        **scores,
    )


def best_concepts(chosen: Iterable[Row]) -> tuple[str, ...]:
    """The concept that a feature separates best, of those that it was called for; or none.

    A feature that is not called for any concept may have nothing to do with those it was chosen
    for: it fills up their ten.
    """
    called = [row for row in chosen if row["called"]]
    # Of a parent and its child with equal separation, the child says more.
    best = max(called, key=lambda row: (row["separation"], row["concept"].count("/")), default=None)
    return () if best is None else (best["concept"],)


def with_ancestors(concepts: Iterable[str]) -> tuple[str, ...]:
    """Concepts and all above them, each once: `violence/insult` is `violence` too."""
    found: dict[str, None] = {}
    for name in concepts:
        parts = name.split("/")
        found |= dict.fromkeys("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return tuple(found)
