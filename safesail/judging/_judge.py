"""The judge: typed questions in, answers out, each paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from safesail.errors import JudgeError
from safesail.judging._cache import AnswerCache, Entry
from safesail.judging._dialects import Dialect
from safesail.judging._parsing import parse_completion, read_completion
from safesail.judging._questions import Answer, Question, render
from safesail.judging._responses import Response

_BAD_REQUEST = (400, 422)
# Thinking counts as completion at some endpoints: a cut answer is asked again with more room.
_MORE_ROOM = 4
_PLACEHOLDER_KEY = "safesail-has-no-key-for-this-endpoint"


class Judge:
    """An OpenAI-compatible endpoint that answers typed questions.

    Used as an asynchronous context manager, as often as wanted but once at a time::

        judge = Judge("http://localhost:8000/v1", "some-model", cache=Path("judge.sqlite"))
        async with judge:
            answer = await judge.ask(question)

    Every response is committed to the cache before it is used, refusals and unreadable ones too;
    failures are not. The cache key is the request body as sent, the base URL and the replicate.

    Args:
        url: base URL, such as `https://api.openai.com/v1`.
        model: name of the model there.
        cache: SQLite file, made where missing.
        key_variable: environment variable that holds the key. An endpoint on this machine needs
            none.
        concurrency: requests under way at once.
        timeout: seconds that one request may take.
        max_retries: retries of a request after a rate limit, server error, time-out or broken
            connection.

    Raises:
        JudgeError: the URL is not one of HTTP, or holds a password, or there is no key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: Path,
        key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 180.0,
        max_retries: int = 5,
    ) -> None:
        self.url = _checked_url(url, key_variable)
        self.model = model
        self.concurrency = concurrency
        self._key = _key(self.url, key_variable)
        self._cache_path = cache
        self._timeout = timeout
        self._max_retries = max_retries

    async def __aenter__(self) -> Self:
        # Imported here: the OpenAI client takes half a second, and cost estimates need none.
        from safesail.judging._endpoint import Endpoint

        self._cache = AnswerCache(self._cache_path)
        self._endpoint = Endpoint(
            self.url, self._key, timeout=self._timeout, max_retries=self._max_retries
        )
        # What the endpoint was found to take, the one in force first; empty until it answers.
        self._dialects = [
            Dialect(**json.loads(text)) for text in self._cache.dialects(self.url, self.model)
        ]
        self._slots = asyncio.Semaphore(self.concurrency)
        self._first_contact = asyncio.Lock()
        self._contacted = False
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cache.close()
        await self._endpoint.close()

    async def ask(self, question: Question, *, replicate: int = 0) -> Answer:
        """Ask a question; an answer that cannot be read is asked once more, the error shown.

        Args:
            question: what to ask.
            replicate: number of an independent repetition, asked and cached on its own.

        Raises:
            JudgeError: the endpoint cannot be reached, or refuses every request.
            StorageError: an answer could not be stored or looked up.
        """
        response = await self._response(question, replicate)
        first = _interpret(response, question)
        completion = parse_completion(response.text)
        if first.status != "unparseable" or completion is None:
            return first
        # Some endpoints take no empty message, so an empty answer is not shown again.
        said = [{"role": "assistant", "content": completion.content}] if completion.content else []
        room = _MORE_ROOM if completion.finish_reason == "length" else 1
        again = replace(
            question,
            messages=[*question.messages, *said, *render("repair", error=first.error).messages],
            max_tokens=question.max_tokens * room,
        )
        second = _interpret(await self._response(again, replicate), question)
        return replace(
            second,
            prompt_tokens=first.prompt_tokens + second.prompt_tokens,
            completion_tokens=first.completion_tokens + second.completion_tokens,
            calls=first.calls + second.calls,
            cached=first.cached and second.cached,
        )

    async def _response(self, question: Question, replicate: int) -> Response:
        """The stored response to a question, or a new one."""
        # Two identical questions under way: the second waits, then finds the first one's answer.
        name = self._cache_key(_canonical(Dialect().body(self.model, question)), replicate)
        turn = self._turns.setdefault(name, asyncio.Lock())
        async with turn:
            for dialect in self._dialects:
                body = _canonical(dialect.body(self.model, question))
                stored = self._cache.get(self._cache_key(body, replicate))
                if stored is not None:
                    return Response(*stored, calls=0, seconds=0.0)
            async with self._slots:
                return await self._send(question, replicate)

    async def _send(self, question: Question, replicate: int) -> Response:
        """Send a question; the first of a run goes alone, to learn if and how to ask the rest."""
        if not self._contacted:
            async with self._first_contact:
                if not self._contacted:
                    await self._endpoint.reach()
                    response = await self._negotiate(question, replicate)
                    self._contacted = True
                    return response
        return await self._negotiate(question, replicate)

    async def _negotiate(self, question: Question, replicate: int) -> Response:
        """Send a question in the dialect in force, or in simpler ones where that is refused."""
        dialect = self._dialects[0] if self._dialects else Dialect()
        calls = 0
        while True:
            body = dialect.body(self.model, question)
            response = await self._endpoint.send(body)
            calls += response.calls
            if response.status_code not in _BAD_REQUEST or response.filtered:
                break
            # Once the endpoint has answered, a refusal that names no option is not the dialect's.
            simpler = dialect.simpler(response, guess=not self._dialects)
            if simpler is None:
                break
            dialect = simpler
        self._keep(question, replicate, dialect, response)
        return replace(response, calls=calls)

    def _keep(
        self, question: Question, replicate: int, dialect: Dialect, response: Response
    ) -> None:
        """Commit an answer, and first the dialect without which it could not be found again."""
        completion = parse_completion(response.text) if response.status_code == 200 else None
        if completion is None and not response.filtered:
            return
        if dialect not in self._dialects:
            self._cache.add_dialect(self.url, self.model, json.dumps(asdict(dialect)))
            self._dialects.insert(0, dialect)
        body = _canonical(dialect.body(self.model, question))
        self._cache.put(
            Entry(
                key=self._cache_key(body, replicate),
                url=self.url,
                model=self.model,
                task=question.task,
                version=question.version,
                replicate=replicate,
                request=body,
                status_code=response.status_code,
                response=response.text,
                prompt_tokens=completion.prompt_tokens if completion else 0,
                completion_tokens=completion.completion_tokens if completion else 0,
                seconds=response.seconds,
            )
        )

    def _cache_key(self, body: str, replicate: int) -> str:
        return hashlib.sha256(_canonical([self.url, body, replicate]).encode()).hexdigest()


def _interpret(response: Response, question: Question) -> Answer:
    completion = parse_completion(response.text) if response.status_code == 200 else None
    cached = response.calls == 0
    if completion is not None:
        reading = read_completion(completion, question)
        return Answer(
            value=reading.value,
            status=reading.status,
            error=reading.error,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            calls=response.calls,
            cached=cached,
        )
    status: Any = "refused" if response.filtered else "failed"
    return Answer(None, status, response.summary, 0, 0, response.calls, cached)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _checked_url(url: str, key_variable: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port out of range, a bracket that does not close
        sound = False
    if not sound:
        raise JudgeError(f"the judge's URL must look like http://localhost:8000/v1, found {url!r}")
    if parts.username is not None or parts.password is not None:
        raise JudgeError(
            f"the judge's URL must hold no name or password: put the key into {key_variable}"
        )
    return url.rstrip("/")


def _key(url: str, key_variable: str) -> str:
    key = os.environ.get(key_variable, "").strip()
    if key and not key.isascii():
        raise JudgeError(f"the key in {key_variable} holds letters that no key has: set it anew")
    if key:
        return key
    if _is_loopback(urlsplit(url).hostname or ""):
        return _PLACEHOLDER_KEY
    raise JudgeError(f"no key for the judge at {url}: set the environment variable {key_variable}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
