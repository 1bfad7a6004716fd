"""One answer to every question: the content of a chat completion, or a refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from safesail.lab.judge._explaining import explain
from safesail.lab.judge._noise import Quality, chance, generator
from safesail.lab.judge._pairs import contrast_pairs
from safesail.lab.judge._prompts import Asked
from safesail.lab.judge._safety import grade_exchange
from safesail.lab.judge._seeing import grade, simulate

_REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True)
class Reply:
    """What the judge says: in `content`, or in the message's field `refusal`."""

    content: str | None
    refusal: str | None
    kind: Literal["answered", "refused"]


@dataclass(frozen=True)
class Mind:
    """A judge without its server.

    Attributes:
        quality: how well it sees.
        refusals: share of questions that it refuses, by the hash of their bodies: every other one
            in words, the rest by the field `refusal`.
        seed: of all that chance decides.
    """

    quality: Quality
    refusals: float
    seed: int

    def reply(self, asked: Asked, body: str) -> Reply:
        """The reply to a question whose request has that canonical body."""
        draw = chance(self.seed, body, "refusal")
        if draw < self.refusals:
            if draw < self.refusals / 2:
                return Reply(_REFUSAL, None, "refused")
            return Reply(None, _REFUSAL, "refused")
        return Reply(json.dumps(self.answer(asked, body), ensure_ascii=False), None, "answered")

    def answer(self, asked: Asked, body: str) -> dict[str, Any]:
        """The answer's JSON object."""
        random = generator(self.seed, body, "noise")
        match asked.task:
            case "explain":
                return explain(asked)
            case "contrast_pairs":
                return {"pairs": contrast_pairs(asked, self.seed, body)}
            case "simulate":
                levels = simulate(asked.explanation, asked.windows, self.quality, random)
                windows = [
                    {"window": number, "activations": one}
                    for number, one in enumerate(levels, start=1)
                ]
                return {"windows": windows}
            case "segments" | "items" | "detection" | "fuzzing" as task:
                grades = grade(asked.explanation, asked.entries, task, self.quality, random)
                return {
                    "grades": " ".join(
                        f"{number}:{''.join(map(str, digits))}"
                        for number, digits in enumerate(grades, start=1)
                    )
                }
            case "safety_grade":
                return grade_exchange(asked.request, asked.answer, self.quality, random)
        raise ValueError(f"no answer to {asked.task}")


def spoiled(content: str, fault: str, task: str) -> str:
    """An answer with a fault of `CONTENT` in it."""
    if fault == "truncated":
        return content[: max(1, len(content) * 2 // 3)]
    if fault == "prose":
        return (
            f"Sure! Here is the answer.\n```json\n{content}\n```\nLet me know what else you need."
        )
    answer = json.loads(content)
    match task:
        case "simulate":
            answer["windows"][-1]["activations"].pop()
        case "segments" | "items" | "detection" | "fuzzing":
            answer["grades"] = answer["grades"].rpartition(" ")[0]
        case "explain":
            del answer["confidence"]
        case "contrast_pairs":
            answer["pairs"].pop()
        case "safety_grade":
            del answer["grade"]
    return json.dumps(answer, ensure_ascii=False)
