"""What a run with a judge would use, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._items import prompt_sizes
from safesail.explaining._looks import critical_values
from safesail.explaining._questions import (
    Asked,
    detection_questions,
    explain_question,
    fuzzing_questions,
    item_questions,
    segment_questions,
    token_questions,
)
from safesail.explaining._scores import FIXED_LOOK
from safesail.explaining._scoring import ADAPTIVE, PILOT_PROMPTS, Scoring
from safesail.judging import Price, Question

_CHARACTERS_PER_TOKEN = 4
# Of the usual explanation and of the answer that holds it.
_EXPLANATION = "x" * 250
_EXPLANATION_ANSWER_TOKENS = 90
# In an answer: of a token's prediction, a digit and a comma; of a graded entry, its number, a
# colon and a run of digits; and what surrounds them.
_TOKENS_PER_PREDICTION, _TOKENS_PER_WINDOW, _TOKENS_PER_ENTRY, _ANSWER_TOKENS = 2, 12, 4, 8
# Of fewer rows the mean number of prompts says little.
_FEWEST_ROWS = 5
# What is assumed of a judge that nothing is known of: half of the features need a second prompt.
_ASSUMED_PROMPTS = 1.5

_QUESTIONS = {
    "tokens": token_questions,
    "segments": segment_questions,
    "detection": detection_questions,
    "fuzzing": fuzzing_questions,
}


@dataclass(frozen=True)
class Estimate:
    """What `explain_features` would ask of a judge.

    Attributes:
        features: features that would be explained.
        skipped: dead features, those with too few contexts, and those that would inherit.
        calls: requests, if nothing is cached and nothing has to be asked twice.
        prompt_tokens: of these.
        completion_tokens: of these, without thinking unless the judge is known to think.
        least_tokens: prompts and completions together if every score is precise at once.
        most_tokens: the same if none is before its last prompt.
        cost_usd: US dollars by the price list; None without a price.
        basis: what the numbers rest on, in words.
    """

    features: int
    skipped: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    least_tokens: int
    most_tokens: int
    cost_usd: float | None
    basis: str


@dataclass(frozen=True)
class Experience:
    """What is known of a judge from what it has answered.

    Attributes:
        prompts: mean number of prompts until a score is as precise as wanted.
        prompt_factor: tokens of its prompts over characters / 4.
        completion_factor: tokens of its answers over those of the usual answer.
        basis: where this is from, in words.
    """

    prompts: float = _ASSUMED_PROMPTS
    prompt_factor: float = 1.0
    completion_factor: float = 1.0
    basis: str = (
        "nothing is known of this judge: characters / 4 are taken as tokens, and one and a half "
        "scoring prompts a feature; explaining a few features first tells more"
    )


@dataclass(frozen=True)
class _Use:
    """Requests and tokens."""

    calls: float = 0.0
    prompt: float = 0.0
    completion: float = 0.0

    def __add__(self, other: _Use) -> _Use:
        return _Use(
            self.calls + other.calls, self.prompt + other.prompt, self.completion + other.completion
        )

    def times(self, share: float) -> _Use:
        return _Use(self.calls * share, self.prompt * share, self.completion * share)


def estimate(
    evidence: Sequence[FeatureEvidence],
    *,
    concepts: list[str],
    language: str,
    scoring: Scoring,
    experience: Experience | None = None,
    price: Price | None = None,
    batch: bool = False,
) -> Estimate:
    """Estimate calls, tokens and dollars of `explain_features` with a judge; sends nothing.

    Args:
        evidence: the features, as they would be explained.
        concepts: names of all concepts.
        language: of the explanations.
        scoring: how they would be scored.
        experience: what is known of the judge; nothing by default.
        price: of its tokens.
        batch: whether it would be asked through the Batch API.
    """
    known = experience or Experience()
    asked = [one for one in evidence if one.status == "collected" and one.shortage() is None]
    asked = [one for one in asked if one.feature not in scoring.duplicates]
    pilots = scoring.pilots(len(asked))
    least, expected, most = _Use(), _Use(), _Use()
    for number, one in enumerate(asked):
        explaining = _explaining(one, concepts, language, scoring)
        prompts = _scoring_prompts(one, scoring, pilot=number < pilots)
        fixed = scoring.scorer != ADAPTIVE or number < pilots
        least += explaining + _first(prompts, len(prompts) if fixed else 1)
        expected += explaining + _first(prompts, len(prompts) if fixed else known.prompts)
        most += explaining + _first(prompts, len(prompts))
    prompt = expected.prompt / _CHARACTERS_PER_TOKEN * known.prompt_factor
    completion = expected.completion * known.completion_factor
    return Estimate(
        features=len(asked),
        skipped=len(evidence) - len(asked),
        calls=round(expected.calls),
        prompt_tokens=math.ceil(prompt),
        completion_tokens=math.ceil(completion),
        least_tokens=_total(least, known),
        most_tokens=_total(most, known),
        cost_usd=None
        if price is None
        else price.cost(round(prompt), round(completion), batch=batch),
        basis=known.basis,
    )


def added_up(estimates: Sequence[Estimate]) -> Estimate:
    """Estimates of several rounds as one; at least one is needed."""
    first = estimates[0]
    costs = [one.cost_usd for one in estimates]
    counts = ("features", "skipped", "calls", "prompt_tokens", "completion_tokens")
    bounds = ("least_tokens", "most_tokens")
    return replace(
        first,
        **{name: sum(getattr(one, name) for one in estimates) for name in (*counts, *bounds)},
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def experience_of(
    rows: Sequence[Mapping[str, Any]],
    evidence: Mapping[int, FeatureEvidence],
    *,
    concepts: list[str],
    language: str,
    scoring: Scoring,
) -> Experience | None:
    """What a judge's rows of the explanations table tell of it; None where there are too few.

    How many prompts a feature takes is reckoned from the width of its interval: a standard error
    falls with the square root of the items.

    Args:
        rows: scored by the judge with the same scorer.
        evidence: of their features; those without are left out.
        concepts: names of all concepts.
        language: of the explanations.
        scoring: how features would be scored.
    """
    rows = [row for row in rows if row["status"] == "scored" and row["feature"] in evidence]
    if len(rows) < _FEWEST_ROWS:
        return None
    use, prompts = _Use(), []
    for row in rows:
        one = evidence[row["feature"]]
        is_pilot = row["looks"] == 1 and row["prompts"] == PILOT_PROMPTS
        asked = _scoring_prompts(one, scoring, pilot=is_pilot, explanation=row["explanation"])
        if row["explainer"] == "judge":
            use += _explaining(one, concepts, language, replace(scoring, given={}))
        use += _first(asked, row["prompts"])
        if scoring.scorer == ADAPTIVE:
            prompts.append(_prompts_needed(row, len(one.to_score()), scoring.precision, is_pilot))
    return Experience(
        prompts=fmean(prompts) if prompts else _ASSUMED_PROMPTS,
        prompt_factor=sum(row["prompt_tokens"] for row in rows)
        / (use.prompt / _CHARACTERS_PER_TOKEN),
        completion_factor=sum(row["completion_tokens"] for row in rows) / use.completion,
        basis=f"by {len(rows)} features that this judge has explained and scored here",
    )


def _explaining(
    evidence: FeatureEvidence, concepts: list[str], language: str, scoring: Scoring
) -> _Use:
    """What it takes to have a feature explained; nothing where an explanation is given."""
    if evidence.feature in scoring.given:
        return _Use()
    question = explain_question(evidence, concepts=concepts, language=language, seed=scoring.seed)
    return _Use(1, _characters(question), _EXPLANATION_ANSWER_TOKENS)


def _prompts_needed(row: Mapping[str, Any], windows: int, precision: float, is_pilot: bool) -> int:
    """Prompts after which a feature would have stopped, by the interval that it has."""
    sizes = prompt_sizes(windows)
    ends = [sum(sizes[:number]) for number in range(1, len(sizes) + 1)]
    critical = critical_values(tuple(end / ends[-1] for end in ends))
    used = FIXED_LOOK if is_pilot else critical[min(row["looks"], len(critical)) - 1]
    half = (row["discrimination_high"] - row["discrimination_low"]) / 2
    error = half / used * math.sqrt(row["observations"])
    for number, (end, value) in enumerate(zip(ends, critical, strict=True), start=1):
        if value * error / math.sqrt(end) <= precision:
            return number
    return len(sizes)


def _scoring_prompts(
    evidence: FeatureEvidence, scoring: Scoring, *, pilot: bool, explanation: str = _EXPLANATION
) -> list[_Use]:
    """What each scoring prompt of a feature takes, in order."""
    asked: list[Asked]
    if scoring.scorer == ADAPTIVE:
        sizes = prompt_sizes(len(evidence.to_score()), PILOT_PROMPTS if pilot else None)
        asked = item_questions(explanation, evidence, sizes=sizes, seed=scoring.seed)
    else:
        asked = _QUESTIONS[scoring.scorer](explanation, evidence, seed=scoring.seed)
    return [
        _Use(1, _characters(one.question), _ANSWER_TOKENS + _answer_tokens(one, scoring.scorer))
        for one in asked
    ]


def _answer_tokens(asked: Asked, scorer: str) -> int:
    if scorer == "tokens":
        tokens = sum(len(part.truth) for part in asked.parts)
        return _TOKENS_PER_WINDOW * len(asked.parts) + _TOKENS_PER_PREDICTION * tokens
    return _TOKENS_PER_ENTRY * len(asked.parts)


def _first(prompts: Sequence[_Use], count: float) -> _Use:
    """The first prompts together, the last of them in part."""
    whole = min(int(count), len(prompts))
    total = sum(prompts[:whole], _Use())
    if whole < len(prompts):
        total += prompts[whole].times(count - whole)
    return total


def _total(use: _Use, known: Experience) -> int:
    prompt = use.prompt / _CHARACTERS_PER_TOKEN * known.prompt_factor
    return math.ceil(prompt + use.completion * known.completion_factor)


def _characters(question: Question) -> int:
    return sum(len(message["content"]) for message in question.messages)
