"""What a known-truth judge was asked and what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class ServerLog:
    """What a server was asked and what it did.

    Attributes:
        asked: requests, batched ones included.
        answered: of these, answered as the judge answers.
        refused: refused by the judge.
        faulted: requests that met a fault, by kind.
        unknown: requests that are none of safesail's questions.
        by_task: task -> outcome (`answered`, `refused` or a kind of fault) -> requests.
        paid: SHA-256 of the canonical body -> how often a whole response was sent that costs
            tokens, spoiled answers and refusals included.
        prompt_tokens: of the paid responses.
        completion_tokens: likewise.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    faulted: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    by_task: dict[str, Counter[str]] = field(default_factory=dict)
    paid: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, task: str, outcome: str) -> None:
        """One more request with that outcome."""
        self.by_task.setdefault(task, Counter())[outcome] += 1
        if outcome == "answered":
            self.answered += 1
        elif outcome == "refused":
            self.refused += 1
        else:
            self.faulted[outcome] += 1
