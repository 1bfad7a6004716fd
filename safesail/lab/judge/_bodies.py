"""Bodies of responses, as OpenAI documents them."""

from __future__ import annotations

import math
from typing import Any

Body = dict[str, Any]

MODEL = "known-truth"


def completion(body: Body, content: str | None, refusal: str | None) -> Body:
    """A chat completion; tokens are characters / 4, rounded up."""
    said = sum(len(str(message["content"])) for message in body["messages"])
    prompt, answer = math.ceil(said / 4), math.ceil(len(content or refusal or "") / 4)
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-lab",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", MODEL),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        },
    }


def error(message: str, code: str) -> Body:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": code, "param": None, "code": code}}


FAULTS: dict[str, tuple[int, Body, bool]] = {
    "rate_limited": (429, error("slow down", "rate_limit_exceeded"), True),
    "rate_limited_bare": (429, error("slow down", "rate_limit_exceeded"), False),
    "server_error": (500, error("scripted fault", "server_error"), False),
    "unavailable": (503, error("overloaded", "overloaded"), False),
    "cut": (200, {}, False),
    "hang": (200, {}, False),
    "no_choices": (200, {"id": "chatcmpl-lab", "object": "chat.completion", "choices": []}, False),
    "content_filter": (400, error("filtered for its content", "content_filter"), False),
}
"""Kind of fault -> HTTP status, body, and whether `Retry-After` is sent."""
