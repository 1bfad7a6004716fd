"""A judge for tests: a real HTTP server on loopback that speaks the OpenAI chat protocol.

    with JudgeServer() as server:
        judge = Judge(server.url, "test-judge", cache=folder / "judge.sqlite")

It answers the prompts of explaining and scoring sensibly by itself: it explains a feature by the
tokens that are marked most, and simulates and grades by looking for them. `server.faults` holds
what goes wrong with the next requests, one fault a request; `server.answer` replaces its wits.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Body = dict[str, Any]

_MARK = re.compile(r"⟪(\d+)⟫")
_ENTRY = re.compile(r"\d+ (.*)")


@dataclass
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: HTTP status; 200 for faults inside a good response.
        headers: of the response, such as `Retry-After`.
        error: the OpenAI error object.
        content: the message's content instead of an answer.
        refusal: the message's `refusal`.
        finish_reason: of the choice.
        usage: the tokens instead of those counted.
        raw: the whole body instead of a chat completion.
        hang: seconds before the response.
        cut: break the connection in the middle of the response.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: Body = field(default_factory=lambda: {"message": "scripted fault"})
    content: str | None = None
    refusal: str | None = None
    finish_reason: str = "stop"
    usage: Body | None = None
    raw: str | None = None
    hang: float = 0.0
    cut: bool = False


def default_answer(body: Body) -> str:
    """A sensible answer to the prompts of explaining and scoring, as a judge would give it."""
    lines = body["messages"][1]["content"].splitlines()
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    explained = [one["explanation"] for one in objects if "explanation" in one]
    if not explained:
        return json.dumps(_explain([json.loads(line) for line in lines if line.startswith('"')]))
    words = set(re.findall(r'"([^"]+)"', explained[0]))
    windows = [one for one in objects if "window" in one]
    if windows:
        return json.dumps({"windows": [_simulate(words, window) for window in windows]})
    largest = 1 if "0 or 1" in body["messages"][0]["content"] else 3
    entries = [json.loads(found[1]) for line in lines if (found := _ENTRY.fullmatch(line))]
    grades = [
        "".join(str(largest * _names(words, part)) for part in _parts(entry)) for entry in entries
    ]
    return json.dumps({"grades": " ".join(f"{n}:{one}" for n, one in enumerate(grades, start=1))})


def _parts(entry: str | list[str]) -> list[str]:
    return [entry] if isinstance(entry, str) else entry


def _names(words: set[str], text: str) -> bool:
    """Whether a text holds one of some words, between its brackets where it has any."""
    plain = text.replace("⟪", "").replace("⟫", "")
    spans, shift = [], 0
    for found in re.finditer("⟪(.*?)⟫", text, re.DOTALL):
        spans.append((found.start() - shift, found.end() - shift - 2))
        shift += 2
    spans = spans or [(0, len(plain))]
    return any(
        _bare(word[0]) in words
        and any(word.start() < end and word.end() > start for start, end in spans)
        for word in re.finditer(r"\w+", plain)
    )


def _explain(texts: list[str]) -> Body:
    """Name the words whose mean level over all shown windows is highest."""
    levels: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for text in texts:
        for chunk in text.split():
            word = _bare(_MARK.sub("", chunk))
            seen[word] += 1
            levels[word] += max(map(int, _MARK.findall(chunk)), default=0)
    # One imagined silent sighting keeps single words from the top.
    mean = {word: levels[word] / (seen[word] + 1) for word in levels if word and levels[word]}
    best = sorted(mean, key=lambda word: (-mean[word], word))
    words = [word for word in best if mean[word] >= 2] or best[:3]
    explanation = "active at " + ", ".join(f'"{word}"' for word in words[:8])
    return {"explanation": explanation, "concepts": [], "confidence": 0.5}


def _simulate(words: set[str], window: Body) -> Body:
    tokens = window["tokens"]
    # For each token the number of its word, so that all tokens of a named word are active.
    starts = [not index or token[:1].isspace() for index, token in enumerate(tokens)]
    numbers = list(accumulate(starts))
    text = {n: "".join(t for t, m in zip(tokens, numbers, strict=True) if m == n) for n in numbers}
    return {
        "window": window["window"],
        "activations": [9 if _bare(text[number]) in words else 0 for number in numbers],
    }


def _bare(token: str) -> str:
    return re.sub(r"\W", "", token).lower()


class JudgeServer:
    """The server; a context manager that starts and stops it.

    Attributes:
        faults: what goes wrong with the next requests, in order.
        answer: from a request body to the content of the answer.
        unsupported: options that every request is refused for, by name: `json_schema`,
            `json_object`, `max_tokens`, `max_completion_tokens`, `temperature`,
            `reasoning_effort`; the refusal names the option unless `vague` is set.
        requests: bodies of the requests received so far, faulty ones included.
        headers: headers of those requests.
        arrivals: when they came, in seconds of `time.monotonic`.
        most_at_once: largest number of requests under way together.
        delay: seconds that every response takes.
    """

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.answer: Callable[[Body], str] = default_answer
        self.unsupported: set[str] = set()
        self.vague = False
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.arrivals: list[float] = []
        self.most_at_once = 0
        self.delay = 0.0
        self._under_way = 0
        application = Starlette(
            routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])]
        )
        # Port 0: the system chooses a free one. A lifespan would only log.
        self._server = uvicorn.Server(
            uvicorn.Config(
                application, host="127.0.0.1", port=0, log_level="critical", lifespan="off"
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    @property
    def url(self) -> str:
        """Base URL for a judge."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.arrivals.append(time.monotonic())
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            fault = self.faults.popleft() if self.faults else Fault()
            await asyncio.sleep(max(self.delay, fault.hang))
            return self._respond(body, fault)
        finally:
            self._under_way -= 1

    def _respond(self, body: Body, fault: Fault) -> Response:
        if fault.cut:
            return _CutResponse()
        if fault.raw is not None:
            return Response(fault.raw, fault.status, fault.headers)
        if fault.status != 200:
            return JSONResponse({"error": fault.error}, fault.status, fault.headers)
        refused = self._refused_option(body)
        if refused is not None:
            return JSONResponse({"error": refused}, 400)
        silent = fault.refusal is not None
        content = fault.content if fault.content is not None or silent else self.answer(body)
        prompt = sum(len(message["content"]) for message in body["messages"]) // 4
        message = {"role": "assistant", "content": content, "refusal": fault.refusal}
        choice = {"index": 0, "message": message, "finish_reason": fault.finish_reason}
        usage = {"prompt_tokens": prompt, "completion_tokens": len(content or "") // 4 + 1}
        return JSONResponse(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": usage if fault.usage is None else fault.usage,
            }
        )

    def _refused_option(self, body: Body) -> Body | None:
        options = {"max_tokens", "max_completion_tokens", "temperature", "reasoning_effort"}
        used = options & body.keys()
        used |= {body["response_format"]["type"]} if "response_format" in body else set()
        for option in sorted(used & self.unsupported):
            param = "response_format" if option.startswith("json") else option
            if self.vague:
                return {"message": "bad request"}
            return {"message": f"unsupported: {option}", "param": param, "code": "unsupported"}
        return None


class _CutResponse(Response):
    """Promises more bytes than it sends; the server then breaks the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"choices": [', "more_body": False})
