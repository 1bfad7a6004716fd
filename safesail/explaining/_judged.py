"""Questions to a judge: explain a feature; predict its activations from an explanation alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from safesail.explaining._evidence import FeatureEvidence, levels, shuffled
from safesail.judging import Answer, Judge, Question, render
from safesail.tables import Context

WINDOWS_PER_PROMPT = 10
ITEM_FORMAT = f"every token, integers 0 to 10, {WINDOWS_PER_PROMPT} windows a prompt"

# How many windows an explanation prompt shows: the strongest, some of every level, silent ones.
_SHOWN_TOP, _SHOWN_PER_LEVEL, _SHOWN_SILENT, _SHOWN_HARD_SILENT = 6, 2, 5, 5
_EXPLAIN_TOKENS = 1_000
# A prediction costs a digit and a comma; the rest is what surrounds them.
_SIMULATE_TOKENS_PER_TOKEN, _SIMULATE_TOKENS = 3, 500

# Sent as additionalProperties: strict JSON schemas demand it. A surplus key does no harm in an
# answer of an endpoint without schemas, so it is ignored there.
_CLOSED = ConfigDict(json_schema_extra={"additionalProperties": False})


class ExplanationAnswer(BaseModel):
    """Answer to `explain.j2`; validation context: `concepts`, all names that may be given."""

    model_config = _CLOSED

    explanation: Annotated[str, Field(min_length=1)]
    concepts: list[str]
    confidence: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _concepts_are_listed(self, info: ValidationInfo) -> Self:
        unknown = set(self.concepts) - set((info.context or {})["concepts"])
        if unknown:
            raise ValueError(f"not in the concept list: {', '.join(sorted(unknown))}")
        if not self.explanation.strip():
            raise ValueError("the explanation is empty")
        return self


class SimulatedWindow(BaseModel):
    """Predictions for one window."""

    model_config = _CLOSED

    window: int
    activations: list[Annotated[int, Field(ge=0, le=10)]]


class SimulationAnswer(BaseModel):
    """Answer to `simulate.j2`; validation context: `counts`, tokens of each window in order."""

    model_config = _CLOSED

    windows: list[SimulatedWindow]

    @model_validator(mode="after")
    def _lengths_fit(self, info: ValidationInfo) -> Self:
        counts: list[int] = (info.context or {})["counts"]
        numbers = [one.window for one in self.windows]
        if numbers != list(range(1, len(counts) + 1)):
            raise ValueError(f"windows 1 to {len(counts)} are wanted in order, found {numbers}")
        for one, count in zip(self.windows, counts, strict=True):
            if len(one.activations) != count:
                raise ValueError(
                    f"window {one.window} has {len(one.activations)} activations, "
                    f"{count} are wanted"
                )
        return self


@dataclass(frozen=True)
class Simulation:
    """What a simulator made of some windows.

    Attributes:
        contexts: the windows that were predicted.
        activations: their predictions, 0 to 10, one array of shape (tokens,) a window.
        missing: how many windows the judge did not predict.
        answers: every answer behind them, and behind those that are missing.
        version: of the prompt.
    """

    contexts: list[Context]
    activations: list[NDArray[np.float64]]
    missing: int
    answers: list[Answer]
    version: str


def explain_question(
    evidence: FeatureEvidence, *, concepts: Sequence[str], language: str, seed: int
) -> Question:
    """Ask for an explanation, from windows of the explain split alone."""
    windows = evidence.to_explain()
    active = [
        {"text": _marked(context, evidence.q999)}
        for context in _shown_active(windows, evidence.name, seed)
    ]
    silent = [
        {"text": "".join(context.tokens)} for context in _shown_silent(windows, evidence.name, seed)
    ]
    prompt = render(
        "explain", concepts=list(concepts), language=language, active=active, silent=silent
    )
    return Question(
        prompt.task,
        prompt.version,
        prompt.messages,
        ExplanationAnswer,
        _EXPLAIN_TOKENS,
        {"concepts": list(concepts)},
    )


def simulate_questions(
    explanation: str, evidence: FeatureEvidence, *, seed: int
) -> list[tuple[Question, list[Context]]]:
    """Ask for predictions of all windows of the score split, with the windows of each question.

    Windows of all kinds are shuffled; nothing shows their kind.
    """
    contexts = shuffled(evidence.to_score(), evidence.name, seed)
    questions = []
    for start in range(0, len(contexts), WINDOWS_PER_PROMPT):
        batch = contexts[start : start + WINDOWS_PER_PROMPT]
        counts = [len(context.tokens) for context in batch]
        windows = [
            {"window": number, "count": len(context.tokens), "tokens": context.tokens}
            for number, context in enumerate(batch, start=1)
        ]
        prompt = render("simulate", explanation=explanation, windows=windows)
        limit = _SIMULATE_TOKENS + _SIMULATE_TOKENS_PER_TOKEN * sum(counts)
        question = Question(
            prompt.task,
            prompt.version,
            prompt.messages,
            SimulationAnswer,
            limit,
            {"counts": counts},
        )
        questions.append((question, batch))
    return questions


async def simulate(
    judge: Judge, explanation: str, evidence: FeatureEvidence, *, seed: int
) -> Simulation:
    """Have a judge predict the score split from the explanation alone."""
    questions = simulate_questions(explanation, evidence, seed=seed)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(judge.ask(question)) for question, _ in questions]
    answers = [task.result() for task in asked]
    contexts: list[Context] = []
    activations: list[NDArray[np.float64]] = []
    for (_, batch), answer in zip(questions, answers, strict=True):
        if isinstance(answer.value, SimulationAnswer):
            contexts += batch
            activations += [np.array(one.activations, float) for one in answer.value.windows]
    missing = sum(len(batch) for _, batch in questions) - len(contexts)
    return Simulation(contexts, activations, missing, answers, questions[0][0].version)


def commonest_fault(answers: Iterable[Answer]) -> Answer | None:
    """An answer of the status that most of the unanswered ones have."""
    faults = [answer for answer in answers if answer.status != "answered"]
    if not faults:
        return None
    ((status, _),) = Counter(answer.status for answer in faults).most_common(1)
    return next(answer for answer in faults if answer.status == status)


def _shown_active(windows: list[Context], name: str, seed: int) -> list[Context]:
    active = [context for context in windows if context.kind == "active"]
    top = sorted(active, key=lambda context: -context.peak)[:_SHOWN_TOP]
    rest = shuffled([context for context in active if context not in top], name, seed)
    drawn = [
        context
        for level in range(10, 0, -1)
        for context in [one for one in rest if one.level == level][:_SHOWN_PER_LEVEL]
    ]
    return top + drawn


def _shown_silent(windows: list[Context], name: str, seed: int) -> list[Context]:
    drawn = shuffled([context for context in windows if context.kind != "active"], name, seed)
    hard = [context for context in drawn if context.kind == "hard_silent"]
    easy = [context for context in drawn if context.kind == "silent"]
    return hard[:_SHOWN_HARD_SILENT] + easy[:_SHOWN_SILENT]


def _marked(context: Context, q999: float) -> str:
    """The window's text with levels beside its active tokens."""
    return "".join(
        f"{token}⟪{level}⟫" if level else token
        for token, level in zip(context.tokens, levels(context.activations, q999), strict=True)
    )
