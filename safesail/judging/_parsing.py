"""From the body of a chat completion to a typed answer, a refusal, or a reason why neither."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from safesail.judging._questions import Question

_MOST_TOKENS = 1e9
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
# How chat models begin a refusal, in English and Chinese; asked only of answers without JSON.
_REFUSAL = re.compile(
    r"(?:i['’]?m (?:very |really |so )?sorry|i am (?:very |really |so )?sorry|sorry\b"
    r"|i apologi[sz]e"
    r"|(?:unfortunately,? )?i (?:can['’]?t|cannot|can not|won['’]?t|will not|must decline)"
    r"|i['’]?m (?:unable|not able)|i am (?:unable|not able)|as an ai\b"
    r"|(?:很|非常)?抱歉|对不起|我(?:无法|不能))",
    re.IGNORECASE,
)


class Completion(NamedTuple):
    """The parts of a chat completion's first choice that matter here."""

    content: str
    refusal: str | None
    finish_reason: str | None


class Usage(NamedTuple):
    """Tokens as the endpoint counted them.

    Attributes:
        prompt_tokens: of the request.
        completion_tokens: of the response, hidden ones included.
        reasoning_tokens: of these, those that were thought and not shown.
        known: whether the endpoint counted at all.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    known: bool = False


NO_USAGE = Usage()


class Reading(NamedTuple):
    """What a completion says: a value, or why there is none."""

    status: Literal["answered", "refused", "unparseable"]
    value: BaseModel | None
    error: str | None


def parse_completion(body: str) -> tuple[Completion | None, Usage]:
    """The first choice of a chat completion, None where the body holds none, and the tokens."""
    document = parse_json(body)
    if not isinstance(document, dict):
        return None, NO_USAGE
    usage = _usage(document.get("usage"))
    try:
        choice = document["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        completion = Completion(
            content=sendable(_text_of(content)) if content else "",
            refusal=sendable(str(refusal)) if refusal else None,
            finish_reason=choice.get("finish_reason"),
        )
    except (TypeError, KeyError, IndexError, AttributeError):
        return None, usage
    return completion, usage


def _text_of(content: Any) -> str:
    """A message's content, which some endpoints send in parts."""
    if not isinstance(content, list):
        return str(content)
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))


def parse_json(text: str) -> Any:
    """A JSON document; None where the text is none."""
    try:
        # Twice as fast, but it takes no halves of surrogate pairs.
        return from_json(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _usage(found: Any) -> Usage:
    if not isinstance(found, dict):
        return NO_USAGE
    details = found.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    prompt, completion = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
    total = _count(found.get("total_tokens"))
    # Some endpoints leave hidden tokens out of the completion, but not out of the total.
    hidden = total - prompt - completion
    if hidden > 0:
        completion += hidden
        reasoning = max(reasoning, hidden)
    return Usage(prompt, completion, reasoning, known=prompt + completion > 0)


def _count(value: Any) -> int:
    """A number of tokens; 0, not known, where it is none or none that could be."""
    return int(value) if isinstance(value, (int, float)) and 0 <= value <= _MOST_TOKENS else 0


def sendable(text: str) -> str:
    """A text without halves of surrogate pairs, which JSON can hold and no request can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def read_completion(completion: Completion, question: Question) -> Reading:
    """The typed answer in a completion.

    Thinking parts are set aside; the answer may be bare JSON, JSON in a code fence, or one JSON
    object with words around it.
    """
    if completion.refusal:
        return Reading("refused", None, one_line(completion.refusal))
    text = completion.content
    text = (_THINKING.sub("", text) if "<" in text else text).strip()
    fault = "the answer is empty"
    for candidate in _json_candidates(text):
        try:
            value = question.answer_type.model_validate_json(
                candidate, context=question.validation_context
            )
        except ValidationError as error:
            fault = _describe(error)
        else:
            return Reading("answered", value, None)
    if completion.finish_reason == "content_filter":
        return Reading("refused", None, "stopped by the endpoint's content filter")
    if "{" not in text and _REFUSAL.match(text):
        return Reading("refused", None, one_line(text))
    if completion.finish_reason == "length":
        fault = f"cut off at the limit of completion tokens; {fault}"
    return Reading("unparseable", None, fault)


def _json_candidates(text: str) -> Iterator[str]:
    """Readings of a text as JSON, the most telling one last: its error is the one reported."""
    if text:
        yield text
    yield from _FENCE.findall(text)
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        yield text[start : end + 1]


def _describe(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'answer'}: {fault['msg']}"
        for fault in error.errors()[:3]
    ]
    return one_line("; ".join(faults), 400)


def one_line(text: Any, limit: int = 200) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
