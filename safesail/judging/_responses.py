"""What an endpoint sent back for one request body."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from safesail.judging._parsing import (
    NO_USAGE,
    Completion,
    Usage,
    one_line,
    parse_completion,
    parse_json,
)

PASSING = (408, 409, 429)
"""Statuses below 500 of requests that may well be answered later."""

# In an error object's metadata, what moderation says of the request.
_FLAGGED = {"reasons", "flagged_input"}


def error_in_success(text: str) -> dict[str, Any] | None:
    """The error object in a body that came with status 200; None where it holds none.

    It stands at the top, or in the choice that a provider failed to finish.
    """
    if '"error"' not in text:
        return None
    document = parse_json(text)
    if not isinstance(document, dict):
        return None
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    places = [document.get("error")]
    if isinstance(choice, dict):
        unfinished = choice.get("finish_reason") == "error"
        message = choice.get("message")
        answered = isinstance(message, dict) and bool(message.get("content"))
        if answered and not unfinished and not choice.get("error"):
            return None
        places.append(choice.get("error"))
        if unfinished:
            places.append({"message": "the provider did not finish the answer"})
    found = next((place for place in places if place), None)
    if found is None or isinstance(found, dict):
        return found
    return {"message": str(found)}


@dataclass(slots=True)
class Response:
    """The last response to a body, from the endpoint or from the cache.

    Attributes:
        status_code: of HTTP; 0 where no response came.
        text: the body as received, or what went wrong where none came.
        calls: requests sent, retries included; 0 from the cache.
        seconds: from the first request to the last response.
        cost_usd: US dollars it cost when it was paid for; None where not known.
        completion: the chat completion, if the body is one.
        usage: tokens; of a body that is no chat completion too, where it counts them.
    """

    status_code: int
    text: str
    calls: int
    seconds: float
    cost_usd: float | None = None

    completion: Completion | None = field(init=False, repr=False, compare=False, default=None)
    usage: Usage = field(init=False, repr=False, compare=False, default=NO_USAGE)

    def __post_init__(self) -> None:
        if self.status_code == 200:
            self.completion, self.usage = parse_completion(self.text)

    @property
    def usable(self) -> bool:
        """It says something of the question: an answer, readable or not, or a refusal."""
        return self.completion is not None or self.filtered

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object (`message`, `code`, `param`) as far as the body holds one."""
        document = parse_json(self.text)
        found = document.get("error", document) if isinstance(document, dict) else document
        return found if isinstance(found, dict) else {"message": str(found or self.text)}

    @property
    def filtered(self) -> bool:
        """The endpoint refused the request for its content, by status instead of words."""
        if self.status_code == 400:
            return self.error.get("code") == "content_filter"
        # As OpenRouter passes on what a provider's moderation flagged.
        details = self.error.get("metadata")
        flagged = isinstance(details, dict) and bool(details.keys() & _FLAGGED)
        return self.status_code == 403 and flagged

    @property
    def rejected(self) -> bool:
        """The endpoint works, and wants nothing of this request; it would not later either."""
        return 400 <= self.status_code < 500 and self.status_code not in PASSING

    @property
    def summary(self) -> str:
        """Status and message in one short line."""
        message = one_line(self.error.get("message") or self.text)
        return message if self.status_code == 0 else f"HTTP {self.status_code}: {message}"
