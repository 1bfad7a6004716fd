"""Send request bodies to an OpenAI-compatible endpoint, with retries; nothing is judged here."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from safesail.errors import JudgeError
from safesail.judging._concurrency import AdaptiveLimiter
from safesail.judging._credentials import without_key
from safesail.judging._parsing import one_line
from safesail.judging._responses import PASSING, Response, error_in_success

_PROBE_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# Who asks for more than this is asked again after it all the same.
_LONGEST_PAUSE = 600.0
# What hangs takes minutes each time; a model that had to be loaded is there the second time.
_MOST_HANGS = 2
_NO_CREDIT_CODES = ("insufficient_quota", "billing_hard_limit_reached")
# Codes in words, as statuses: what is flagged, an empty account, a rate limit.
_STATUS_OF = {
    "content_filter": 400,
    "insufficient_quota": 429,
    "billing_hard_limit_reached": 429,
    "rate_limit_exceeded": 429,
}
_CROWDED = (429, 503, 529)


@dataclass(frozen=True)
class _Attempt:
    """What came of one request.

    Attributes:
        status_code: of HTTP; 0 where no response came.
        text: the body, or what went wrong.
        pause: seconds that the endpoint asks to wait.
        last: that no other is to follow, whatever came.
    """

    status_code: int
    text: str
    pause: float | None = None
    last: bool = False

    @property
    def without_credit(self) -> bool:
        """The account is empty, which some endpoints report as a rate limit."""
        error = Response(self.status_code, self.text, 0, 0.0).error
        return self.status_code == 429 and error.get("code") in _NO_CREDIT_CODES

    @property
    def passing(self) -> bool:
        """The same request may well be answered later."""
        if self.status_code == 429:
            return not self.without_credit
        return self.status_code in (0, *PASSING) or self.status_code >= 500


class Endpoint:
    """One base URL with its key.

    Rate limits, server errors and broken connections are retried, what hangs once: after the
    endpoint's `Retry-After`, else with exponential backoff. A rate limit also lowers the number of
    requests under way, and its `Retry-After` holds for all of them.

    Args:
        url: base URL.
        key: sent with every request, and taken out of every text that comes back.
        concurrency: most requests under way at once.
        timeout: seconds that one request may take.
        max_retries: of a request.
    """

    def __init__(
        self, url: str, key: str, *, concurrency: int, timeout: float, max_retries: int
    ) -> None:
        self._url = url
        self._key = key
        self._timeout = timeout
        self._limiter = AdaptiveLimiter(concurrency)
        self._has_answered = False
        self._client = openai.AsyncOpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=0)
        self._retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_result(lambda attempt: attempt.passing and not attempt.last),
            wait=_wait,
            stop=stop_after_attempt(max_retries + 1),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )

    async def reach(self) -> None:
        """Find out quickly whether anybody listens at the URL; any HTTP response will do.

        Raises:
            JudgeError: no connection.
        """
        client = self._client.with_options(timeout=_PROBE_SECONDS)
        try:
            await client.get("/models", cast_to=object)
        except openai.APIConnectionError as error:
            # A busy server may be slow to answer; only a connection that never came about counts.
            # Told by name: the client has moved from one HTTP library to another.
            cause = error.__cause__
            if isinstance(error, openai.APITimeoutError) and "Connect" not in type(cause).__name__:
                return
            reason = one_line(without_key(cause or error, self._key))
        except (openai.OpenAIError, ValueError):  # a response, though no list of models
            return
        else:
            return
        raise JudgeError(
            f"no judge can be reached at {self._url} ({reason}): start it, or correct its URL"
        )

    async def send(self, body: dict[str, Any]) -> Response:
        """Send a chat completion request; the last response, whatever its status.

        Raises:
            JudgeError: the endpoint rejects the key, the model, the path or the account, so that
                no question can ever be answered.
        """
        calls = hangs = 0
        started = time.monotonic()

        async def attempt() -> _Attempt:
            nonlocal calls, hangs
            async with self._limiter.slot() as round:
                calls += 1
                try:
                    found = await self._attempt(body)
                except (openai.APITimeoutError, TimeoutError):
                    hangs += 1
                    text = f"no answer within {self._timeout:g} s"
                    found = _Attempt(0, text, last=hangs == _MOST_HANGS)
                if found.status_code in _CROWDED:
                    self._limiter.crowded(round, found.pause)
                elif not found.passing:
                    self._limiter.succeeded()
            return found

        # A copy: one object counts one call at a time.
        last: _Attempt = await self._retrying.copy()(attempt)
        response = Response(last.status_code, last.text, calls, time.monotonic() - started)
        if last.status_code == 200:
            self._has_answered = True
        elif not response.filtered:
            self._raise_if_hopeless(last, response.summary, body["model"])
        return response

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _attempt(self, body: dict[str, Any]) -> _Attempt:
        try:
            # The client's own time-out is one of silence; this one ends a trickle too.
            async with asyncio.timeout(self._timeout):
                text = await self._client.post("/chat/completions", cast_to=str, body=body)
            return _received(without_key(text, self._key))
        except openai.APIStatusError as error:
            text = without_key(error.response.text, self._key)
            return _Attempt(error.status_code, text, _asked_pause(error.response.headers))
        except openai.APITimeoutError:
            raise
        except openai.APIConnectionError as error:
            return _Attempt(0, without_key(f"{error} {error.__cause__ or ''}".strip(), self._key))

    def _raise_if_hopeless(self, last: _Attempt, summary: str, model: str) -> None:
        advice = {
            401: "check the key",
            402: "the account has no credit left",
            403: "the key has no access to this model",
            404: f"check the URL and the model's name, `{model}`",
        }.get(last.status_code)
        if last.status_code == 403 and self._has_answered:
            advice = None  # the key is good: it is this question that is forbidden
        if last.without_credit:
            advice = "the account has no credit left"
        if advice is not None:
            raise JudgeError(f"the judge at {self._url} refuses requests: {advice} ({summary})")


def _received(text: str) -> _Attempt:
    """What came with status 200: some gateways send the error of a provider behind them so."""
    error = error_in_success(text)
    if error is None:
        return _Attempt(200, text)
    code = error.get("code")
    status = _STATUS_OF.get(str(code))
    if status is None and str(code).isdecimal() and 400 <= int(str(code)) < 600:
        status = int(str(code))
    # What was flagged or has no credit is told by the error as it stands at the top.
    return _Attempt(status or 500, json.dumps({"error": error}, ensure_ascii=False))


_backoff = wait_exponential(_FIRST_WAIT, max=_LONGEST_WAIT) + wait_random(0, _FIRST_WAIT)


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt."""
    attempt: _Attempt | None = state.outcome.result() if state.outcome else None
    if attempt is not None and attempt.pause is not None:
        return attempt.pause
    return _backoff(state)


def _asked_pause(headers: Any) -> float | None:
    """Seconds that `retry-after-ms` or `Retry-After` (RFC 9110: seconds or a date) asks for."""
    pause = _number(headers.get("retry-after-ms"))
    if pause is not None:
        pause /= 1000
    else:
        pause = _number(headers.get("retry-after"))
    if pause is None:
        try:
            date = parsedate_to_datetime(headers.get("retry-after"))
        except (TypeError, ValueError):
            return None
        # A date without a zone is one of GMT.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        pause = (date - datetime.now(UTC)).total_seconds()
    return min(max(pause, 0.0), _LONGEST_PAUSE)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < float("inf") else None
