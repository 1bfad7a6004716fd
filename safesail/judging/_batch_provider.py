"""The calls of the Batch API, each with what its failure means; no order and no storage here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import openai

from safesail.errors import JudgeError
from safesail.judging._credentials import without_key
from safesail.judging._parsing import one_line

_ENDED = ("completed", "failed", "expired", "cancelled")
_CREATION_SECONDS = 20.0
# Statuses of servers that lack the route.
_ABSENT = (404, 405, 501)
_PAGE = 100
# The provider's clock may differ from ours by so much.
_CLOCK_SECONDS = 3600


class BatchTroubleError(JudgeError):
    """The Batch API cannot be used at the moment; another attempt may succeed.

    Attributes:
        status_code: of HTTP; 0 where no response came.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def in_doubt(self) -> bool:
        """The request may have been carried out all the same."""
        return self.status_code == 0 or self.status_code >= 500


@dataclass(frozen=True)
class BatchState:
    """A batch as the provider reports it.

    Attributes:
        status: in the provider's words, in lower case.
        files: output and error file, where there are any.
        errors: of the validation: code, line of the input file (from 1) and message.
    """

    status: str
    files: list[str]
    errors: list[tuple[str, int | None, str]]

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.status in _ENDED

    @property
    def crowded(self) -> bool:
        """Refused because too many tokens wait already."""
        return any(code == "token_limit_exceeded" for code, _, _ in self.errors)

    @property
    def summary(self) -> str:
        """Status and first error in one line."""
        message = f": {one_line(self.errors[0][2])}" if self.errors else ""
        return f"the batch ended as {self.status}{message}"


class BatchProvider:
    """The Batch API of one base URL.

    Args:
        url: base URL.
        key: sent with every request; taken out of every text that comes back.
        timeout: seconds that one request may take.
        max_retries: retries of requests that may safely be repeated.
    """

    def __init__(self, url: str, key: str, *, timeout: float, max_retries: int) -> None:
        self._url = url
        self._key = key
        self._client = openai.AsyncOpenAI(
            base_url=url, api_key=key, timeout=timeout, max_retries=max_retries
        )

    async def upload(self, content: bytes) -> str:
        """Upload an input file; its id. An upload alone costs nothing.

        Raises:
            JudgeError: the endpoint has no Batch API, or refuses the file.
        """
        with self._reported(absent="has no Batch API"):
            file = await self._client.files.create(
                file=("requests.jsonl", content), purpose="batch"
            )
        return file.id

    async def create(self, file_id: str) -> str:
        """Create the batch of an uploaded file, in one attempt; its id.

        Raises:
            BatchTroubleError: not created, or no response whether it was.
            JudgeError: refused.
        """
        client = self._client.with_options(max_retries=0, timeout=_CREATION_SECONDS)
        with self._reported(absent="has no Batch API"):
            batch = await client.batches.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        return batch.id

    async def find(self, file_id: str, created_after: float) -> str | None:
        """Id of the batch that was made of a file, if there is one.

        Args:
            file_id: of the input file.
            created_after: seconds since 1970; the list is read back to here, newest first.
        """
        with self._reported():
            async for batch in self._client.batches.list(limit=_PAGE):
                if batch.input_file_id == file_id:
                    return batch.id
                created = batch.created_at
                if isinstance(created, int) and created < created_after - _CLOCK_SECONDS:
                    break
        return None

    async def state(self, batch_id: str) -> BatchState | None:
        """How far a batch is; None where the provider knows none of this id."""
        with self._reported():
            try:
                batch = await self._client.batches.retrieve(batch_id)
            except openai.NotFoundError:
                return None
        errors = (batch.errors.data if batch.errors else None) or []
        return BatchState(
            status=str(batch.status).lower(),
            files=[one for one in (batch.output_file_id, batch.error_file_id) if one],
            errors=[(error.code or "", error.line, error.message or "") for error in errors],
        )

    async def content(self, file_id: str) -> str:
        """Text of a file; empty where it is gone."""
        with self._reported():
            try:
                file = await self._client.files.content(file_id)
            except openai.NotFoundError:
                return ""
        return without_key(file.content.decode("utf-8", "replace"), self._key)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    @contextlib.contextmanager
    def _reported(self, absent: str = "answers no such request") -> Iterator[None]:
        try:
            yield
        except openai.APIStatusError as error:
            status = error.status_code
            summary = one_line(without_key(f"HTTP {status}: {error.message}", self._key))
            if status in _ABSENT:
                raise JudgeError(
                    f"the judge at {self._url} {absent} ({summary}): run without --batch"
                ) from None
            if status in (408, 409, 429) or status >= 500:
                raise self._trouble(summary, status) from None
            raise JudgeError(
                f"the judge at {self._url} refuses batches ({summary}): check the key and what "
                "its account may do, or run without --batch"
            ) from None
        except openai.APIConnectionError as error:
            reason = one_line(without_key(error.__cause__ or error, self._key))
            raise self._trouble(reason or type(error).__name__, 0) from None

    def _trouble(self, reason: str, status_code: int) -> BatchTroubleError:
        return BatchTroubleError(
            f"the Batch API at {self._url} cannot be used now ({reason}): run the same command "
            "again later, what was submitted is found again",
            status_code,
        )
