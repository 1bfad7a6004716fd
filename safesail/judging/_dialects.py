"""Which of the protocol's options an endpoint takes, found out from what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from safesail.judging._questions import Question
from safesail.judging._responses import Response

_SIMPLER_FORMAT = {"json_schema": "json_object", "json_object": "none"}


@dataclass(frozen=True)
class Dialect:
    """A way to write a request body; the defaults are tried first.

    Attributes:
        response_format: `json_schema` (strict), `json_object`, or `none` (the prompt alone says
            what to answer).
        limit: the option that limits completion tokens.
        temperature: whether a temperature of 0 is asked for.
    """

    response_format: str = "json_schema"
    limit: str = "max_tokens"
    temperature: bool = True

    def body(self, model: str, question: Question) -> dict[str, Any]:
        """The request body of a question."""
        body: dict[str, Any] = {
            "model": model,
            "messages": question.messages,
            self.limit: question.max_tokens,
        }
        if self.temperature:
            body["temperature"] = 0
        if self.response_format == "json_schema":
            schema = {
                "name": question.task,
                "strict": True,
                "schema": question.answer_type.model_json_schema(),
            }
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def simpler(self, response: Response, *, guess: bool) -> Dialect | None:
        """The dialect to try after a refused request; None where the dialect is not at fault.

        Args:
            response: of status 400 or 422.
            guess: give up an answer format though the response does not name it.
        """
        named = f"{response.error.get('param')} {response.error.get('message')}".lower()
        if "temperature" in named and self.temperature:
            return replace(self, temperature=False)
        if "max_tokens" in named and self.limit == "max_tokens":
            return replace(self, limit="max_completion_tokens")
        at_fault = any(word in named for word in ("response_format", "schema", "json"))
        if self.response_format in _SIMPLER_FORMAT and (at_fault or guess):
            return replace(self, response_format=_SIMPLER_FORMAT[self.response_format])
        return None
