"""The judge as a server on loopback, in a thread or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from safesail.errors import ConfigurationError, JudgeError
from safesail.lab.judge._answers import Mind, spoiled
from safesail.lab.judge._bodies import FAULTS, MODEL, Body, completion, error
from safesail.lab.judge._log import ServerLog
from safesail.lab.judge._noise import (
    QUALITIES,
    BatchBehaviour,
    Faults,
    Quality,
    canonical,
    digest,
)
from safesail.lab.judge._prompts import asked

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_START_SECONDS = 60
_MISSING = (
    "the known-truth judge needs starlette and uvicorn: install them with "
    "`pip install safesail[dev]`"
)


@dataclass(frozen=True)
class _Served:
    """A response: HTTP status, headers and body, or a connection that breaks."""

    status: int
    body: Body
    headers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None


class KnownTruthJudge:
    """A server that answers safesail's questions from what the lab knows; a context manager.

        with KnownTruthJudge(quality="medium") as judge:
            Judge(judge.url, MODEL, cache=folder / "judge.sqlite")

    It serves `/v1/chat/completions`, `/v1/models`, the Batch API and, for comparison, its own log
    as JSON at `/lab/log`. Tokens are counted as characters / 4, rounded up, on both sides.

    Args:
        quality: `perfect`, `good`, `medium` or `poor`, or rates of one's own.
        refusals: share of questions that are refused, by the hash of their bodies.
        faults: what else goes wrong.
        batches: how batches go.
        seed: of all that chance decides.
        delay: seconds that every response takes.
        port: on 127.0.0.1; 0: a free one.

    Raises:
        ConfigurationError: the quality is not known, or starlette or uvicorn is not installed.
    """

    def __init__(
        self,
        quality: str | Quality = "good",
        *,
        refusals: float = 0.0,
        faults: Faults | None = None,
        batches: BatchBehaviour | None = None,
        seed: int = 0,
        delay: float = 0.0,
        port: int = 0,
    ) -> None:
        try:
            import uvicorn
            from starlette.applications import Starlette
            from starlette.routing import Route
        except ImportError as missing:
            raise ConfigurationError(_MISSING) from missing
        from safesail.lab.judge._batches import Batches

        self.quality = resolved(quality)
        self.log = ServerLog()
        self._mind = Mind(self.quality, refusals, seed)
        self._faults = faults or Faults()
        self._seed = seed
        self._delay = delay
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        batched = Batches(self._answer_batched, batches or BatchBehaviour(seed=seed))
        application = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/lab/log", self._show_log),
                *batched.routes(),
            ]
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                host="127.0.0.1",
                port=port,
                log_level="critical",
                access_log=False,
                lifespan="off",
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
            if not self._thread.is_alive():
                raise JudgeError("the known-truth judge did not start: is its port free?")
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

    @classmethod
    @contextlib.contextmanager
    def in_a_process(cls, *arguments: str) -> Iterator[RemoteJudge]:
        """The same in a process of its own, so that client and judge do not share one.

        Args:
            arguments: of `python -m safesail.lab.judge`, such as `--quality`, `medium`.

        Raises:
            JudgeError: the process does not start.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "safesail.lab.judge", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise JudgeError(
                    f"the known-truth judge ended with code {process.wait(_START_SECONDS)} "
                    "before it served: see its message above"
                )
            yield RemoteJudge(url)
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()

    async def _complete(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ValueError:
            return _response(_Served(400, error("no JSON", "invalid_request_error")))
        served = self._serve(body, canonical(body), transport=True)
        await asyncio.sleep(self._faults.hang_seconds if served.fault == "hang" else self._delay)
        return _response(served)

    def _answer_batched(self, body: Body) -> tuple[int, Body]:
        served = self._serve(body, canonical(body), transport=False)
        return served.status, served.body

    def _serve(self, body: Body, text: str, *, transport: bool) -> _Served:
        """What becomes of a request; `text` is its canonical body."""
        key = digest(text)
        with self._lock:
            self.log.asked += 1
            self._attempts[key] += 1
            attempt = self._attempts[key]
        try:
            question = asked(body)
        except ValueError as unknown:
            with self._lock:
                self.log.unknown += 1
            return _Served(400, error(str(unknown), "invalid_request_error"))
        fault = self._faults.transport(self._seed, text, attempt) if transport else None
        # An answer that was asked for again because it could not be read is a good one.
        if fault is None and not question.repeated:
            fault = self._faults.content(self._seed, text)
        if fault in FAULTS:
            with self._lock:
                self.log.count(question.task, str(fault))
            headers = {"Retry-After": f"{self._faults.retry_after:g}"}
            status, served, wanted = FAULTS[str(fault)]
            return _Served(status, served, headers if wanted else {}, fault)
        reply = self._mind.reply(question, text)
        content, outcome = reply.content, str(reply.kind)
        if fault is not None and reply.kind == "answered" and content is not None:
            content, outcome = spoiled(content, fault, question.task), fault
        whole = completion(body, content, reply.refusal)
        with self._lock:
            self.log.count(question.task, outcome)
            self.log.paid[key] += 1
            self.log.prompt_tokens += whole["usage"]["prompt_tokens"]
            self.log.completion_tokens += whole["usage"]["completion_tokens"]
        return _Served(200, whole)

    async def _models(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "safesail"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _show_log(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        with self._lock:
            return JSONResponse(vars(self.log))


@dataclass(frozen=True)
class RemoteJudge:
    """A known-truth judge in another process; `url` is its base URL."""

    url: str

    def log(self) -> Body:
        """Its log so far, with the fields of `ServerLog`."""
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/lab/log", timeout=60) as page:
            found: Body = json.load(page)
        return found


def resolved(quality: str | Quality) -> Quality:
    """The quality of a name.

    Raises:
        ConfigurationError: no quality has that name.
    """
    if isinstance(quality, Quality):
        return quality
    if quality not in QUALITIES:
        known = ", ".join(QUALITIES)
        raise ConfigurationError(f"no judge's quality is called {quality!r}: choose of {known}")
    return QUALITIES[quality]


def _response(served: _Served) -> Response:
    from starlette.responses import JSONResponse

    if served.fault in ("cut", "hang"):
        # More is promised than comes, so the server breaks the connection.
        return JSONResponse({}, headers={"content-length": "1000"})
    return JSONResponse(served.body, served.status, served.headers)
