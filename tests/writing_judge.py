"""What a judge that writes contrast pairs answers in tests."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

Body = dict[str, Any]

# Sounds that make words; no two texts of them are near one another.
_SOUNDS = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def wanted(body: Body) -> int:
    """How many pairs a question asks for."""
    found = re.search(r"^Write (\d+) pairs", body["messages"][1]["content"], flags=re.MULTILINE)
    assert found is not None
    return int(found[1])


def taken(body: Body) -> list[str]:
    """The texts that a question shows as taken."""
    lines = body["messages"][1]["content"].partition("Already taken, write others:")[2]
    return [json.loads(line) for line in lines.splitlines() if line]


def texts(generator: random.Random) -> dict[str, str]:
    """A pair of ten invented words a text, three of which differ between the twins."""
    words = ["".join(generator.choices(_SOUNDS, k=3)) for _ in range(13)]
    return {"positive": " ".join(words[:10]), "negative": " ".join(words[:7] + words[10:])}


def writer(
    change: Callable[[int, dict[str, str]], dict[str, str]] = lambda number, pair: pair,
) -> Callable[[Body], str]:
    """An answerer for `JudgeServer` that writes as many good pairs as asked.

    Args:
        change: from a pair's number, counted over all answers, and the pair to what is answered.
    """
    generator = random.Random(0)
    written = 0

    def answer(body: Body) -> str:
        nonlocal written
        pairs = []
        for _ in range(wanted(body)):
            pairs.append(change(written, texts(generator)))
            written += 1
        return json.dumps({"pairs": pairs})

    return answer
