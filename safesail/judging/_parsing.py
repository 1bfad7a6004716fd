"""From the body of a chat completion to a typed answer, a refusal, or a reason why neither."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from safesail.judging._questions import Question

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


@dataclass(frozen=True)
class Completion:
    """The parts of a chat completion that matter here."""

    content: str
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Reading:
    """What a completion says: a value, or why there is none."""

    status: Literal["answered", "refused", "unparseable"]
    value: BaseModel | None
    error: str | None


def parse_completion(body: str) -> Completion | None:
    """The first choice of a chat completion; None where the body is no chat completion."""
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        message = choice["message"]
        usage = document.get("usage") or {}
        return Completion(
            content=_sendable(str(message.get("content") or "")),
            refusal=_sendable(str(message.get("refusal") or "")) or None,
            finish_reason=choice.get("finish_reason"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def _sendable(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and no request can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_completion(completion: Completion, question: Question) -> Reading:
    """The typed answer in a completion.

    Thinking parts are set aside; the answer may be bare JSON, JSON in a code fence, or one JSON
    object with words around it.
    """
    if completion.refusal:
        return Reading("refused", None, _one_line(completion.refusal))
    text = _THINKING.sub("", completion.content).strip()
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
        return Reading("refused", None, _one_line(text))
    if completion.finish_reason == "length":
        fault = f"cut off at the limit of completion tokens; {fault}"
    return Reading("unparseable", None, fault)


def _json_candidates(text: str) -> list[str]:
    """Readings of a text as JSON, the most telling one last: its error is the one reported."""
    candidates = [text] if text else []
    candidates += _FENCE.findall(text)
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        candidates.append(text[start : end + 1])
    return candidates


def _describe(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'answer'}: {fault['msg']}"
        for fault in error.errors()[:3]
    ]
    return _one_line("; ".join(faults), 400)


def _one_line(text: Any, limit: int = 200) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
