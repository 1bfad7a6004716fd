"""Which of the protocol's options an endpoint takes, found out from what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from safesail.judging._questions import Question
from safesail.judging._responses import Response

_SIMPLER_FORMAT = {"json_schema": "json_object", "json_object": "none"}


@dataclass(frozen=True)
class Options:
    """What is asked of an endpoint beside the question, as far as it takes it.

    Attributes:
        model: name of the model there.
        reasoning_effort: how hard a reasoning model should think; None leaves it to the endpoint.
    """

    model: str
    reasoning_effort: str | None = None


@dataclass(frozen=True)
class Dialect:
    """A way to write a request body; the defaults are tried first.

    Attributes:
        response_format: `json_schema` (strict), `json_object`, or `none` (the prompt alone says
            what to answer).
        limit: the option that limits completion tokens.
        temperature: whether a temperature of 0 is asked for.
        reasoning_effort: whether an effort is asked for, where one is set.
    """

    response_format: str = "json_schema"
    limit: str = "max_tokens"
    temperature: bool = True
    reasoning_effort: bool = True

    def body(self, options: Options, question: Question) -> str:
        """The request body of a question: canonical JSON (sorted keys, no spaces)."""
        before, after = frame(self, options, Form.of(question))
        messages = ",".join(map(canonical, question.messages))
        return f"{before}{messages}{after}"

    def simpler(self, response: Response, options: Options, *, guess: bool) -> Dialect | None:
        """The dialect to try after a refused request; None where the dialect is not at fault.

        Args:
            response: of status 400 or 422.
            options: that were asked for.
            guess: give up an option though the response does not name it.
        """
        named = f"{response.error.get('param')} {response.error.get('message')}".lower()
        effort = self.reasoning_effort and options.reasoning_effort is not None
        if "reasoning" in named and effort:
            return replace(self, reasoning_effort=False)
        if "temperature" in named and self.temperature:
            return replace(self, temperature=False)
        if "max_tokens" in named and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        at_fault = any(word in named for word in ("response_format", "schema", "json"))
        if self.response_format in _SIMPLER_FORMAT and (at_fault or guess):
            return replace(self, response_format=_SIMPLER_FORMAT[self.response_format])
        if effort and guess:
            return replace(self, reasoning_effort=False)
        return None


class Form(NamedTuple):
    """What many questions have in common, beside the first message."""

    task: str
    answer_type: type[BaseModel]
    max_tokens: int

    @classmethod
    def of(cls, question: Question) -> Form:
        """The form of a question."""
        return cls(question.task, question.answer_type, question.max_tokens)


@lru_cache(maxsize=256)
def frame(dialect: Dialect, options: Options, form: Form) -> tuple[str, str]:
    """A request body before and after its messages."""
    body: dict[str, Any] = {
        "model": options.model,
        "messages": [],
        dialect.limit: form.max_tokens,
    }
    if dialect.temperature:
        body["temperature"] = 0
    if dialect.reasoning_effort and options.reasoning_effort is not None:
        body["reasoning_effort"] = options.reasoning_effort
    if dialect.response_format == "json_schema":
        schema = form.answer_type.model_json_schema()
        named = {"name": form.task, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    elif dialect.response_format == "json_object":
        body["response_format"] = {"type": "json_object"}
    # Before the messages, in the order of the alphabet, stands only the limit.
    before, _, after = canonical(body).partition('"messages":[]')
    return f'{before}"messages":[', f"]{after}"


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same for the same value."""
    return _ENCODER.encode(value)
