"""Questions to a judge: explain a feature; grade parts of windows by an explanation alone."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from safesail.explaining._answers import ExplanationAnswer, GradesAnswer, SimulationAnswer
from safesail.explaining._evidence import FeatureEvidence, levels, shuffled
from safesail.explaining._graded import Part
from safesail.explaining._items import draw_items, unmarked
from safesail.explaining._marking import marked_windows
from safesail.explaining._mixture import stratum_of
from safesail.explaining._segments import segments
from safesail.judging import Question, render
from safesail.tables import Context

TOKENS_PROMPT, SEGMENTS_PROMPT, WINDOWS_PROMPT = 10, 20, 5
"""Windows a prompt: of token simulation, of segment simulation, of detection and fuzzing."""

LARGEST_LEVEL, LARGEST_GRADE, LARGEST_DECISION = 10, 3, 1

# How many windows an explanation prompt shows: the strongest, some of every level, silent ones.
_SHOWN_TOP, _SHOWN_SPREAD, _SHOWN_SILENT, _SHOWN_HARD_SILENT = 4, 8, 2, 2
_EXPLAIN_TOKENS = 1_000
# A prediction costs a digit and a comma, an entry of grades its number, a colon and its digits;
# the rest is what surrounds them.
_TOKENS_PER_LEVEL, _TOKENS_PER_ENTRY, _TOKENS_PER_GRADE, _ANSWER_TOKENS = 3, 6, 2, 500


@dataclass(frozen=True)
class Asked:
    """A question with the parts that it asks about, in the order of its entries."""

    question: Question
    parts: list[Part]


def explain_question(
    evidence: FeatureEvidence, *, concepts: Sequence[str], language: str, seed: int
) -> Question:
    """Ask for an explanation, from windows of the explain split alone.

    Four strongest windows, eight spread over the levels that occur, two silent and two hard
    silent ones.
    """
    windows = evidence.to_explain()
    prompt = render(
        "explain",
        concepts=list(concepts),
        language=language,
        active=[
            _with_levels(context, evidence.q999)
            for context in _shown_active(windows, evidence.name, seed)
        ],
        silent=[_text(context) for context in _shown_silent(windows, evidence.name, seed)],
    )
    return Question(
        prompt.task,
        prompt.version,
        prompt.messages,
        ExplanationAnswer,
        _EXPLAIN_TOKENS,
        {"concepts": list(concepts)},
    )


def token_questions(explanation: str, evidence: FeatureEvidence, *, seed: int) -> list[Asked]:
    """Ask for a prediction of every token of the score split, ten windows a prompt."""
    asked = []
    for batch in _batches(evidence, TOKENS_PROMPT, seed):
        counts = [len(context.tokens) for context in batch]
        windows = [
            {"window": number, "count": len(context.tokens), "tokens": context.tokens}
            for number, context in enumerate(batch, start=1)
        ]
        prompt = render("simulate", explanation=explanation, windows=windows)
        question = Question(
            prompt.task,
            prompt.version,
            prompt.messages,
            SimulationAnswer,
            _ANSWER_TOKENS + _TOKENS_PER_LEVEL * sum(counts),
            {"counts": counts},
        )
        parts = [
            Part(one, one.activations, [1] * len(one.tokens), stratum_of(one)) for one in batch
        ]
        asked.append(Asked(question, parts))
    return asked


def segment_questions(
    explanation: str,
    evidence: FeatureEvidence,
    *,
    seed: int,
    windows_per_prompt: int = SEGMENTS_PROMPT,
) -> list[Asked]:
    """Ask for a grade of every segment of the score split, 20 windows a prompt by default."""
    asked = []
    for batch in _batches(evidence, windows_per_prompt, seed):
        spans = [segments(context.tokens) for context in batch]
        texts = [
            ["".join(context.tokens[first:end]) for first, end in of_window]
            for context, of_window in zip(batch, spans, strict=True)
        ]
        question = _grades_question(
            "segments", explanation, "windows", texts, [len(one) for one in spans], LARGEST_GRADE
        )
        parts = [
            Part(
                context,
                [max(context.activations[first:end]) for first, end in of_window],
                [end - first for first, end in of_window],
                stratum_of(context),
            )
            for context, of_window in zip(batch, spans, strict=True)
        ]
        asked.append(Asked(question, parts))
    return asked


def item_questions(
    explanation: str, evidence: FeatureEvidence, *, sizes: Sequence[int], seed: int
) -> list[Asked]:
    """Ask for grades of short items, in prompts of these sizes."""
    asked = []
    for items in draw_items(evidence, sizes, seed):
        texts = [item.text for item in items]
        question = _grades_question(
            "items", explanation, "items", texts, [1] * len(texts), LARGEST_GRADE
        )
        asked.append(Asked(question, [Part.whole(item.context, item.truth) for item in items]))
    return asked


def detection_questions(explanation: str, evidence: FeatureEvidence, *, seed: int) -> list[Asked]:
    """Ask in which windows of the score split the feature is active, five a prompt."""
    asked = []
    for batch in _batches(evidence, WINDOWS_PROMPT, seed):
        texts = [_text(context) for context in batch]
        question = _grades_question(
            "detection", explanation, "windows", texts, [1] * len(texts), LARGEST_DECISION
        )
        asked.append(Asked(question, [Part.whole(one, one.peak) for one in batch]))
    return asked


def fuzzing_questions(explanation: str, evidence: FeatureEvidence, *, seed: int) -> list[Asked]:
    """Ask in which windows of the score split the right words are marked, five a prompt."""
    marked = marked_windows(evidence.to_score(), evidence.name, seed)
    random.Random(f"fuzzing/{seed}/{evidence.name}").shuffle(marked)
    asked = []
    for start in range(0, len(marked), WINDOWS_PROMPT):
        batch = marked[start : start + WINDOWS_PROMPT]
        question = _grades_question(
            "fuzzing",
            explanation,
            "windows",
            [one.text for one in batch],
            [1] * len(batch),
            LARGEST_DECISION,
        )
        parts = [Part.whole(one.context, one.truth, one.stratum) for one in batch]
        asked.append(Asked(question, parts))
    return asked


def _batches(evidence: FeatureEvidence, size: int, seed: int) -> Iterator[list[Context]]:
    """Windows of the score split; all kinds are shuffled, nothing shows their kind."""
    contexts = shuffled(evidence.to_score(), evidence.name, seed)
    for start in range(0, len(contexts), size):
        yield contexts[start : start + size]


def _grades_question(
    task: str,
    explanation: str,
    name: str,
    entries: Sequence[str | list[str]],
    counts: list[int],
    largest: int,
) -> Question:
    prompt = render(task, **{"explanation": explanation, name: entries})
    limit = _ANSWER_TOKENS + _TOKENS_PER_ENTRY * len(counts) + _TOKENS_PER_GRADE * sum(counts)
    context = {"counts": counts, "largest": largest}
    return Question(prompt.task, prompt.version, prompt.messages, GradesAnswer, limit, context)


def _shown_active(windows: list[Context], name: str, seed: int) -> list[Context]:
    active = [context for context in windows if context.kind == "active"]
    top = sorted(active, key=lambda context: -context.peak)[:_SHOWN_TOP]
    by_level: dict[int, list[Context]] = defaultdict(list)
    for context in shuffled([context for context in active if context not in top], name, seed):
        by_level[context.level].append(context)
    # Places spread evenly over the levels that occur, strongest first, until there are enough.
    occurring = sorted(by_level, reverse=True)
    count = min(_SHOWN_SPREAD, len(occurring))
    first = [
        occurring[place] for place in np.linspace(0, len(occurring) - 1, count).round().astype(int)
    ]
    drawn = [by_level[level].pop() for level in first]
    while len(drawn) < _SHOWN_SPREAD and any(by_level.values()):
        for level in occurring:
            if by_level[level] and len(drawn) < _SHOWN_SPREAD:
                drawn.append(by_level[level].pop())
    return top + drawn


def _shown_silent(windows: list[Context], name: str, seed: int) -> list[Context]:
    drawn = shuffled([context for context in windows if context.kind != "active"], name, seed)
    hard = [context for context in drawn if context.kind == "hard_silent"]
    easy = [context for context in drawn if context.kind == "silent"]
    return hard[:_SHOWN_HARD_SILENT] + easy[:_SHOWN_SILENT]


def _text(context: Context) -> str:
    return unmarked("".join(context.tokens))


def _with_levels(context: Context, q999: float) -> str:
    """The window's text with levels beside its active tokens."""
    return "".join(
        f"{unmarked(token)}⟪{level}⟫" if level else unmarked(token)
        for token, level in zip(context.tokens, levels(context.activations, q999), strict=True)
    )
