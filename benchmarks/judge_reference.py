"""The usual protocol beside ours, and ours beside token simulation, for `judge_cost.py`."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from judge_bench import PRECISION, Bench, Row, half_width, is_scored, shared_by, tokens
from judge_truth import true_discrimination
from scipy.stats import spearmanr

from safesail.explaining import FeatureEvidence, Scoring
from safesail.explaining._answers import ExplanationAnswer
from safesail.explaining._questions import _with_levels
from safesail.explaining._scorers import Scored
from safesail.judging import Question, render

# Windows of the fixed protocol.
_EXPLAIN_WINDOWS, _SCORE_WINDOWS = 40, 100
_ANSWER_TOKENS = 1_000


def fixed_protocol(bench: Bench, rows: list[Row], features: int) -> dict[str, Any]:
    """What the fixed protocol takes on some features, and adaptive scores as precise as it.

    40 active windows to explain; detection and fuzzing on 100 windows each, half of them active as
    far as there are, 5 a prompt. Its precision is the median half-width of detection's
    discrimination, without a design effect: five windows share a prompt.
    """
    rows = [row for row in rows[:features] if row["explanation"]]
    full = {one.feature: one for one in bench.full}
    evidence = [full[row["feature"]] for row in rows]
    explained = bench.ask([_explain_question(one, bench.pool.concepts) for one in evidence])
    hundred = [_to_score(one, _SCORE_WINDOWS) for one in evidence]
    detected = bench.score("detection", rows, hundred)
    fuzzed = bench.score("fuzzing", rows, hundred)
    reference = [
        answer.prompt_tokens + answer.completion_tokens + asked(one) + asked(two)
        for answer, one, two in zip(explained, detected, fuzzed, strict=True)
    ]
    precision = statistics.median(width(one) for one in detected)
    shared = shared_by(rows)
    equal = bench.run(evidence, Scoring(precision=precision, design_effect=shared))
    median = statistics.median(reference)
    return {
        "reference_tokens_per_feature": median,
        "reference_precision": precision,
        "tokens_at_equal_precision": statistics.median(map(tokens, equal)),
        "cost_ratio_at_equal_precision": median / statistics.median(map(tokens, equal)),
        "reached_equal_precision": statistics.fmean(
            half_width(row) <= precision for row in equal if is_scored(row)
        ),
    }


def agreement(bench: Bench, rows: list[Row], features: int) -> dict[str, Any]:
    """Segments and items beside token simulation over all windows of some features."""
    rows = [row for row in rows[:features] if is_scored(row)]
    full = {one.feature: one for one in bench.full}
    evidence = [full[row["feature"]] for row in rows]
    simulated = bench.score("tokens", rows, evidence)
    segments = bench.score("segments", rows, evidence)
    halves = [
        bench.score("tokens", rows, [_half(one, side) for one in evidence]) for side in (0, 1)
    ]
    items = bench.score(
        "items", rows, [_to_score(one, _SCORE_WINDOWS) for one in evidence],
        design_effect=shared_by(rows),
    )  # fmt: skip
    correlations = [[one.correlation.value for one in scored] for scored in (simulated, segments)]
    discriminations = [one.discrimination.value for one in simulated]
    truths = [
        true_discrimination(row["explanation"], one, bench.quality)
        for row, one in zip(rows, evidence, strict=True)
    ]
    return {
        "agreement_features": len(rows),
        "segment_cost_reduction": 1
        - statistics.median(map(asked, segments)) / statistics.median(map(asked, simulated)),
        "items_cost_reduction": 1
        - statistics.median(map(_scaled, items)) / statistics.median(map(_scaled, simulated)),
        "segment_spearman": _agree(*correlations),
        "discrimination_spearman": _agree(discriminations, [row["discrimination"] for row in rows]),
        "reference_correlation_spearman": _agree(
            *[[one.correlation.value for one in scored] for scored in halves]
        ),
        "reference_spearman": _agree(
            *[[one.discrimination.value for one in scored] for scored in halves]
        ),
        "reference_truth_spearman": _agree(truths, discriminations),
        "adaptive_truth_spearman": _agree(truths, [row["discrimination"] for row in rows]),
        "token_discrimination": statistics.median(discriminations),
    }


def asked(scored: Scored) -> int:
    """Tokens of a score's prompts and answers."""
    return sum(one.prompt_tokens + one.completion_tokens for one in scored.answers)


def width(scored: Scored) -> float:
    """Half-width of the interval of discrimination."""
    return (scored.discrimination.high - scored.discrimination.low) / 2


def _scaled(scored: Scored) -> float:
    """Tokens until the interval is 0.10 to either side: a variance falls as one over the items."""
    return asked(scored) * (width(scored) / PRECISION) ** 2


def _agree(one: Sequence[float], other: Sequence[float]) -> float:
    return float(spearmanr(one, other, nan_policy="omit").statistic)


def _explain_question(evidence: FeatureEvidence, concepts: list[str]) -> Question:
    active = [context for context in evidence.to_explain() if context.kind == "active"]
    shown = random.Random(evidence.name).sample(active, min(_EXPLAIN_WINDOWS, len(active)))
    prompt = render(
        "explain",
        concepts=concepts,
        language="en",
        active=[_with_levels(context, evidence.q999) for context in shown],
        silent=[],
    )
    return Question(
        prompt.task,
        prompt.version,
        prompt.messages,
        ExplanationAnswer,
        _ANSWER_TOKENS,
        {"concepts": concepts},
    )


def _to_score(evidence: FeatureEvidence, count: int) -> FeatureEvidence:
    """So many windows to score on, half of them active as far as there are."""
    windows = random.Random(evidence.name).sample(evidence.to_score(), len(evidence.to_score()))
    active = [one for one in windows if one.kind == "active"][: count // 2]
    silent = [one for one in windows if one.kind != "active"][: count - len(active)]
    return replace(evidence, contexts=[*active, *silent])


def _half(evidence: FeatureEvidence, side: int) -> FeatureEvidence:
    """Every second window, stratum by stratum."""
    return replace(evidence, contexts=evidence.to_score()[side::2])
