"""Send request bodies to an OpenAI-compatible endpoint, with retries; nothing is judged here."""

from __future__ import annotations

import time
from typing import Any, cast

import openai

from safesail.errors import JudgeError
from safesail.judging._responses import Response

_PROBE_SECONDS = 10.0
_NO_CREDIT_CODES = ("insufficient_quota", "billing_hard_limit_reached")


class Endpoint:
    """One base URL with its key.

    Rate limits, server errors, time-outs and broken connections are retried with exponential
    backoff or after the endpoint's `Retry-After`: the OpenAI client does that.
    """

    def __init__(self, url: str, key: str, *, timeout: float, max_retries: int) -> None:
        self._url = url
        self._key = key
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key, timeout=timeout, max_retries=max_retries
        )

    async def reach(self) -> None:
        """Find out quickly whether anybody listens at the URL; any HTTP response will do.

        Raises:
            JudgeError: no connection.
        """
        client = self._client.with_options(max_retries=0, timeout=_PROBE_SECONDS)
        try:
            await client.get("/models", cast_to=object)
        except openai.APIConnectionError as error:
            # A busy server may be slow to answer; only a connection that never came about counts.
            # Told by name: the client has moved from one HTTP library to another.
            cause = error.__cause__
            if isinstance(error, openai.APITimeoutError) and "Connect" not in type(cause).__name__:
                return
            raise JudgeError(
                f"no judge can be reached at {self._url} ({self._clean(cause or error)}): "
                "start it, or correct its URL"
            ) from error
        except openai.OpenAIError:
            return

    async def send(self, body: dict[str, Any]) -> Response:
        """Send a chat completion request; the last response, whatever its status.

        Raises:
            JudgeError: the endpoint rejects the key, the model, the path or the account, so that
                no question can ever be answered.
        """
        started = time.monotonic()
        completions = self._client.chat.completions.with_raw_response
        try:
            raw = await cast(Any, completions.create)(**body)
        except openai.APIStatusError as error:
            response = Response(
                error.status_code,
                self._clean(error.response.text),
                _requests(error),
                time.monotonic() - started,
            )
            self._raise_if_hopeless(response, body["model"])
            return response
        except openai.APIConnectionError as error:
            text = self._clean(f"{error} {error.__cause__ or ''}".strip())
            return Response(0, text, _requests(error), time.monotonic() - started)
        return Response(
            raw.status_code,
            self._clean(raw.text),
            raw.retries_taken + 1,
            time.monotonic() - started,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _raise_if_hopeless(self, response: Response, model: str) -> None:
        advice = {
            401: "check the key",
            402: "the account has no credit left",
            403: "the key has no access to this model",
            404: f"check the URL and the model's name, `{model}`",
        }.get(response.status_code)
        if response.status_code == 429 and response.error.get("code") in _NO_CREDIT_CODES:
            advice = "the account has no credit left"
        if advice is not None:
            raise JudgeError(
                f"the judge at {self._url} refuses requests: {advice} ({response.summary})"
            )

    def _clean(self, text: object) -> str:
        """A text of the endpoint without the key, should it echo it."""
        # A short key is no secret (local servers take any), but may well be part of an answer.
        return str(text).replace(self._key, "[key]") if len(self._key) >= 16 else str(text)


def _requests(error: openai.APIError) -> int:
    """Requests sent before the client gave up; it numbers its retries in a header."""
    return int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
