"""What a run with a judge would use, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._judged import explain_question, simulate_questions
from safesail.judging import Question

_CHARACTERS_PER_TOKEN = 4
_EXPLANATION = "x" * 300
_EXPLANATION_ANSWER_TOKENS = 120
# In an answer: a digit and a comma for every token, and what names the window.
_TOKENS_PER_PREDICTION, _TOKENS_PER_WINDOW = 2, 12


@dataclass(frozen=True)
class Estimate:
    """What `explain_features` would ask of a judge.

    Attributes:
        features: features that would be explained.
        skipped: dead features, and those with too few contexts.
        calls: requests, if nothing is cached and nothing has to be asked twice.
        prompt_tokens: characters of the prompts divided by 4, a rule for English text; other
            languages take more.
        completion_tokens: for answers of the usual length, without thinking.
    """

    features: int
    skipped: int
    calls: int
    prompt_tokens: int
    completion_tokens: int


def estimate(
    evidence: Iterable[FeatureEvidence], *, concepts: list[str], language: str, seed: int = 0
) -> Estimate:
    """Estimate calls and tokens of `explain_features` with a judge; sends nothing."""
    features = skipped = calls = characters = completion = 0
    for one in evidence:
        if one.status != "collected" or one.shortage() is not None:
            skipped += 1
            continue
        features += 1
        questions = [explain_question(one, concepts=concepts, language=language, seed=seed)]
        completion += _EXPLANATION_ANSWER_TOKENS
        for question, batch in simulate_questions(_EXPLANATION, one, seed=seed):
            questions.append(question)
            completion += sum(
                _TOKENS_PER_WINDOW + _TOKENS_PER_PREDICTION * len(context.tokens)
                for context in batch
            )
        calls += len(questions)
        characters += sum(_characters(question) for question in questions)
    return Estimate(
        features, skipped, calls, math.ceil(characters / _CHARACTERS_PER_TOKEN), completion
    )


def _characters(question: Question) -> int:
    return sum(len(message["content"]) for message in question.messages)
