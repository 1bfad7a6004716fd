"""Ways to score an explanation with a judge: by tokens, segments, items, detection or fuzzing."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from safesail.explaining._answers import GradesAnswer, SimulationAnswer
from safesail.explaining._design_effect import INDEPENDENT, Contribution, DesignEffect
from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._graded import Graded, GradedScores, graded_scores
from safesail.explaining._items import LEFT_TOKENS, SEGMENT_TOKENS, prompt_sizes
from safesail.explaining._looks import critical_values
from safesail.explaining._questions import (
    LARGEST_DECISION,
    LARGEST_GRADE,
    LARGEST_LEVEL,
    SEGMENTS_PROMPT,
    TOKENS_PROMPT,
    WINDOWS_PROMPT,
    Asked,
    detection_questions,
    fuzzing_questions,
    item_questions,
    segment_questions,
    token_questions,
)
from safesail.explaining._scores import FIXED_LOOK, Interval
from safesail.judging import Answer, Judge

DEFAULT_PRECISION = 0.10
"""Half-width of the 95 % interval of `discrimination` at which adaptive scoring stops."""

Status = Literal["scored", "explained", "refused", "unparseable", "failed", "budget"]

_UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Scored:
    """What came of scoring one explanation.

    Attributes:
        correlation: weighted Pearson correlation with the true activations, in [-1, 1]; NaN
            where it is undefined or there are too few answers.
        discrimination: weighted AUROC, active against silent, in [0, 1]; likewise. Chance is 0.5.
        observations: windows that were graded.
        missing: windows that were asked about and not graded.
        missing_failed: of these, windows of questions whose request failed.
        mixture: kinds of windows that the scores refer to, with their shares; None without any.
        active_share: share of active windows among those graded (class balance); None likewise.
        item_format: what was graded, how, and how many a prompt.
        looks: how often the interval was looked at; 1 unless scoring was adaptive.
        prompts: how many were asked.
        design_effect: factor in the variance of `discrimination` for shared prompts.
        contribution: what this explanation says of the design effect; None from one prompt.
        answers: of all prompts, in order.
        prompt_version: of the prompt's template.
        status: `scored`; `explained` where a score is undefined; `refused`, `unparseable`,
            `failed` or `budget` where more than half of what was asked is missing, mostly for
            that reason.
        error: what is missing or undefined, and why; None if nothing is.
    """

    correlation: Interval
    discrimination: Interval
    observations: int
    missing: int
    missing_failed: int
    mixture: str | None
    active_share: float | None
    item_format: str
    looks: int
    prompts: int
    design_effect: float
    contribution: Contribution | None
    answers: list[Answer]
    prompt_version: str
    status: Status
    error: str | None


class Scorer(Protocol):
    """A way to score an explanation; see the functions of `SCORERS`."""

    async def __call__(
        self,
        judge: Judge,
        explanation: str,
        evidence: FeatureEvidence,
        *,
        seed: int,
        design_effect: DesignEffect = INDEPENDENT,
    ) -> Scored: ...


async def score_tokens(
    judge: Judge,
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    design_effect: DesignEffect = INDEPENDENT,
) -> Scored:
    """Token simulation, the reference: the judge predicts every token of every window."""
    asked = token_questions(explanation, evidence, seed=seed)
    item_format = f"every token, integers 0 to 10, {TOKENS_PROMPT} windows a prompt"
    return await _score_all(judge, asked, LARGEST_LEVEL, item_format, design_effect)


async def score_segments(
    judge: Judge,
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    design_effect: DesignEffect = INDEPENDENT,
    windows_per_prompt: int = SEGMENTS_PROMPT,
) -> Scored:
    """Segment simulation: the judge grades every segment of every window, 0 to 3.

    In the correlation each token stands with its segment's grade and largest true activation.
    """
    asked = segment_questions(
        explanation, evidence, seed=seed, windows_per_prompt=windows_per_prompt
    )
    item_format = f"every segment, grades 0 to 3, {windows_per_prompt} windows a prompt"
    return await _score_all(judge, asked, LARGEST_GRADE, item_format, design_effect)


async def score_detection(
    judge: Judge,
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    design_effect: DesignEffect = INDEPENDENT,
) -> Scored:
    """Detection, as in delphi: in which windows is the feature active?

    The correlation is that of the decisions with the windows' peaks.
    """
    asked = detection_questions(explanation, evidence, seed=seed)
    item_format = f"whole windows, 0 or 1, {WINDOWS_PROMPT} a prompt"
    return await _score_all(judge, asked, LARGEST_DECISION, item_format, design_effect)


async def score_fuzzing(
    judge: Judge,
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    design_effect: DesignEffect = INDEPENDENT,
) -> Scored:
    """Fuzzing, as in delphi: in which windows are the right words marked?

    Every second active window has the wrong words marked and counts among the silent ones. The
    correlation is that of the decisions with the largest activation at the marked tokens.
    """
    asked = fuzzing_questions(explanation, evidence, seed=seed)
    item_format = f"marked words of windows, 0 or 1, {WINDOWS_PROMPT} a prompt"
    return await _score_all(judge, asked, LARGEST_DECISION, item_format, design_effect)


async def score_items(
    judge: Judge,
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    design_effect: DesignEffect = INDEPENDENT,
    precision: float = DEFAULT_PRECISION,
    prompts: int | None = None,
) -> Scored:
    """Short items, prompt after prompt, until `discrimination` is known to the precision.

    After each prompt its 95 % interval is computed, with critical values such that the intervals
    of all looks together hold the truth 95 times in 100 (`_looks.py`). A prompt that is not
    answered costs its items and its look.

    Args:
        judge: who grades.
        explanation: what it goes by.
        evidence: the feature's windows.
        seed: of the items.
        design_effect: how the answers of one prompt go together.
        precision: half-width of the interval at which to stop.
        prompts: ask so many prompts of equal size instead, all at once, and look once: for the
            features from which the design effect is estimated.
    """
    sizes = prompt_sizes(len(evidence.to_score()), prompts)
    asked = item_questions(explanation, evidence, sizes=sizes, seed=seed)
    item_format = (
        f"segments of {SEGMENT_TOKENS} tokens after {LEFT_TOKENS} tokens, grades 0 to 3, "
        f"{' + '.join(map(str, dict.fromkeys(sizes)))} items a prompt"
    )
    if prompts is not None:
        return await _score_all(judge, asked, LARGEST_GRADE, item_format, design_effect)
    answers: list[Answer] = []
    graded: list[Graded] = []
    times: list[float] = []
    scores: GradedScores | None = None
    for number, one in enumerate(asked, start=1):
        answers.append(await judge.ask(one.question))
        if answers[-1].status == "budget":
            break  # and so would be whatever follows
        answered = _graded(one, answers[-1], number)
        if not answered:
            continue
        graded += answered
        times.append(sum(sizes[:number]) / sum(sizes))
        scores = graded_scores(
            graded,
            largest=LARGEST_GRADE,
            critical_value=critical_values(tuple(times))[-1],
            design_effect=design_effect,
        )
        interval = scores.discrimination
        if (interval.high - interval.low) / 2 <= precision:
            break
    return _scored(asked[: len(answers)], answers, scores, item_format, looks=len(times))


SCORERS: Mapping[str, Scorer] = {
    "tokens": score_tokens,
    "segments": score_segments,
    "items": score_items,
    "detection": score_detection,
    "fuzzing": score_fuzzing,
}
"""Ways to score by name."""


async def _score_all(
    judge: Judge,
    asked: Sequence[Asked],
    largest: int,
    item_format: str,
    design_effect: DesignEffect,
) -> Scored:
    """Ask all prompts at once and look once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(judge.ask(one.question)) for one in asked]
    answers = [task.result() for task in tasks]
    graded = [
        part
        for number, (one, answer) in enumerate(zip(asked, answers, strict=True), start=1)
        for part in _graded(one, answer, number)
    ]
    scores = None
    if graded:
        scores = graded_scores(
            graded, largest=largest, critical_value=FIXED_LOOK, design_effect=design_effect
        )
    return _scored(asked, answers, scores, item_format, looks=1)


def _graded(asked: Asked, answer: Answer, prompt: int) -> list[Graded]:
    """The parts of a question with the answer's grades; none where it has none."""
    value = answer.value
    if isinstance(value, GradesAnswer):
        grades = value.digits
    elif isinstance(value, SimulationAnswer):
        grades = [window.activations for window in value.windows]
    else:
        return []
    return [Graded(part, of, prompt) for part, of in zip(asked.parts, grades, strict=True)]


def _scored(
    asked: Sequence[Asked],
    answers: list[Answer],
    scores: GradedScores | None,
    item_format: str,
    *,
    looks: int,
) -> Scored:
    wanted = sum(len(one.parts) for one in asked)
    missing = wanted - (scores.observations if scores else 0)
    fault = _commonest_fault(answers)
    errors = []
    status: Status = "scored"
    if fault is not None:
        errors.append(f"{missing} of {wanted} windows not graded: {fault.status}, {fault.error}")
    if fault is not None and missing > wanted / 2:
        status = fault.status  # type: ignore[assignment]  # a fault is never `answered`
    elif scores is not None:
        if math.isnan(scores.correlation.value):
            errors.append("correlation undefined: the grades or the true activations are constant")
        if math.isnan(scores.discrimination.value):
            errors.append("discrimination undefined: active or silent windows are missing")
        if math.isnan(scores.correlation.value) or math.isnan(scores.discrimination.value):
            status = "explained"
    known = scores if status in ("scored", "explained") else None
    return Scored(
        correlation=known.correlation if known else _UNKNOWN,
        discrimination=known.discrimination if known else _UNKNOWN,
        observations=wanted - missing,
        missing=missing,
        missing_failed=sum(
            len(one.parts)
            for one, answer in zip(asked, answers, strict=True)
            if answer.status == "failed"
        ),
        mixture=known.mixture if known else None,
        active_share=known.active_share if known else None,
        item_format=item_format,
        looks=looks,
        prompts=len(answers),
        design_effect=known.design_effect if known else 1.0,
        contribution=known.contribution if known else None,
        answers=answers,
        prompt_version=asked[0].question.version,
        status=status,
        error="; ".join(errors) or None,
    )


def _commonest_fault(answers: Iterable[Answer]) -> Answer | None:
    """An answer of the status that most of the unanswered ones have."""
    faults = [answer for answer in answers if answer.status != "answered"]
    if not faults:
        return None
    ((status, _),) = Counter(answer.status for answer in faults).most_common(1)
    return next(answer for answer in faults if answer.status == status)
