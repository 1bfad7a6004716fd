"""What a question will cost, learned from what answers took so far."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from safesail.judging._parsing import Usage
from safesail.judging._questions import Question

_CHARACTERS_PER_TOKEN = 4


Tokens = tuple[int, int]  # of prompt and completion


@dataclass
class _Seen:
    """Answers of one kind so far."""

    answers: int = 0
    tokens_per_character: float = 0.0  # the most
    completion: int = 0  # the most tokens


class Estimator:
    """Tokens of questions to one model, by task and limit of completion tokens."""

    def __init__(self) -> None:
        self._seen: defaultdict[tuple[str, int], _Seen] = defaultdict(_Seen)

    def estimate(self, question: Question) -> tuple[Tokens, Tokens]:
        """What a question will take: cautiously, and as the answers so far say (0 without any).

        The cautious one is the most that any answer took, and a share of the room above it that
        shrinks as answers come in: requests under way together then seldom take more.
        """
        seen = self._seen[_kind(question)]
        ratio = seen.tokens_per_character if seen.answers else 1 / _CHARACTERS_PER_TOKEN
        prompt = math.ceil(_characters(question) * ratio)
        room = max(0, question.max_tokens - seen.completion)
        cautious = prompt, seen.completion + math.ceil(room / (1 + seen.answers))
        return cautious, (prompt, seen.completion) if seen.answers else (0, 0)

    def learn(self, question: Question, usage: Usage) -> None:
        """Take what an answer took into account."""
        if not usage.known:
            return
        seen = self._seen[_kind(question)]
        ratio = usage.prompt_tokens / max(_characters(question), 1)
        seen.answers += 1
        seen.tokens_per_character = max(seen.tokens_per_character, ratio)
        seen.completion = max(seen.completion, usage.completion_tokens)


def _kind(question: Question) -> tuple[str, int]:
    return question.task, question.max_tokens


def _characters(question: Question) -> int:
    return sum(len(message["content"]) for message in question.messages)
