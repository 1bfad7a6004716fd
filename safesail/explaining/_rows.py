"""Rows of the explanations table, as a feature's explanation and scores come in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from safesail.explaining._evidence import FeatureEvidence
from safesail.tables import EXPLANATIONS

if TYPE_CHECKING:
    from safesail.explaining._design_effect import DesignEffect
    from safesail.explaining._scorers import Scored
    from safesail.explaining._scores import Interval, WindowScores
    from safesail.judging import Answer

Row = dict[str, Any]

_LEXICAL_FORMAT = "every token, 0 to 10, from words alone"


def new_row(evidence: FeatureEvidence, language: str, *, explainer: str) -> Row:
    """A row in which nothing is known yet but what the feature is."""
    row: Row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
    row.update(
        sae=evidence.sae,
        layer=evidence.layer,
        feature=evidence.feature,
        language=language,
        concepts=evidence.concepts,
        explainer=explainer,
        observations=0,
        calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        reasoning_tokens=0,
        fallback_answers=0,
        created_at=datetime.now(UTC).replace(microsecond=0),
    )
    return row


def taken_over(given: Mapping[str, Any]) -> Row:
    """What a row that scores an imported explanation has of the imported row."""
    names = ("explainer", "explanation", "language", "source", "tags")
    return {name: given[name] for name in names}


def ends_early(row: Row, evidence: FeatureEvidence) -> bool:
    """Set the status of a feature that there is nothing to ask about."""
    if evidence.status == "dead":
        row.update(status="dead", error="the feature is silent on the whole corpus")
        return True
    shortage = evidence.shortage()
    if evidence.status == "too_few_contexts" or shortage is not None:
        row.update(status="too_few_contexts", error=shortage or "too few contexts collected")
        return True
    return False


def add_costs(row: Row, answers: Iterable[Answer]) -> None:
    """Count what answers took; dollars only while every one of them has a price."""
    answers = list(answers)
    for name in ("calls", "prompt_tokens", "completion_tokens", "reasoning_tokens"):
        row[name] += sum(getattr(answer, name) for answer in answers)
    row["fallback_answers"] += sum(answer.by_fallback for answer in answers)
    costs = [answer.cost_usd for answer in answers if answer.status != "budget"]
    known = [cost for cost in costs if cost is not None]
    row["cost_usd"] = (row["cost_usd"] or 0.0) + sum(known) if len(known) == len(costs) else None


def add_scores(row: Row, scored: Scored, design_effect: DesignEffect | None) -> None:
    """Enter what a scorer found, and how the answers of its prompts were taken to go together."""
    if scored.status in ("scored", "explained"):
        _add_intervals(row, scored.correlation, scored.discrimination)
        row["design_effect"] = scored.design_effect
    row.update(
        status=scored.status,
        error=scored.error,
        observations=scored.observations,
        missing=scored.missing,
        missing_failed=scored.missing_failed,
        mixture=scored.mixture,
        active_share=scored.active_share,
        item_format=scored.item_format,
        looks=scored.looks,
        prompts=scored.prompts,
    )
    if design_effect is not None:
        row["shared_discrimination"] = design_effect.discrimination
        row["shared_correlation"] = design_effect.correlation


def add_lexical_scores(row: Row, scores: WindowScores) -> None:
    """Enter the scores of the lexical baseline."""
    _add_intervals(row, scores.correlation, scores.discrimination)
    row.update(
        observations=scores.observations,
        mixture=scores.mixture,
        item_format=_LEXICAL_FORMAT,
    )
    faults = []
    if math.isnan(scores.correlation.value):
        faults.append("correlation undefined: the simulated or the true activations are constant")
    if math.isnan(scores.discrimination.value):
        faults.append("discrimination undefined: active or silent windows are missing altogether")
    row.update(status="explained" if faults else "scored", error="; ".join(faults) or None)


def _add_intervals(row: Row, correlation: Interval, discrimination: Interval) -> None:
    for name, interval in (("correlation", correlation), ("discrimination", discrimination)):
        row[name] = interval.value
        row[f"{name}_low"], row[f"{name}_high"] = interval.low, interval.high


def inherited(row: Row, source: Row | None, representative: int) -> Row:
    """The row of a near-duplicate: its representative's explanation, marked, without scores.

    Args:
        row: the near-duplicate's new row.
        source: the representative's row; None where it has none.
        representative: the representative's feature.
    """
    row["inherited_from"] = representative
    if source is None or source["explanation"] is None:
        status = source["status"] if source else "failed"
        why = source["error"] if source else "it was not explained"
        row.update(status=status, error=f"a near-duplicate of feature {representative}: {why}")
        return row
    for name in ("explanation", "judge_concepts", "confidence", "prompt_version", "explained_by"):
        row[name] = source[name]
    row["status"] = "inherited"
    return row
