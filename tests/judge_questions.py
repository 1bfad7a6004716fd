"""Questions and how tests of the judge ask them."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, ConfigDict

from safesail.judging import Answer, Judge, Question


class Verdict(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    verdict: int


def question(text: str = "How many?", *, task: str = "count", max_tokens: int = 50) -> Question:
    return Question(task, f"{task}/1", [{"role": "user", "content": text}], Verdict, max_tokens)


def ask(judge: Judge, *questions: Question, **options: Any) -> list[Answer]:
    async def work() -> list[Answer]:
        async with judge:
            return await asyncio.gather(*(judge.ask(one, **options) for one in questions))

    return asyncio.run(work())
