"""Ask through the Batch API: bodies are gathered, submitted together and followed to their end.

A batch is stored before it is created and forgotten when its answers are committed, so a run that
is killed at any moment finds its batches again and neither pays twice nor loses an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from safesail.judging._batch_files import (
    BatchPace,
    BatchRequest,
    Result,
    read_requests,
    read_results,
    write_requests,
)
from safesail.judging._batch_provider import BatchProvider, BatchState, BatchTroubleError
from safesail.judging._cache import AnswerCache
from safesail.judging._responses import Response

# A batch whose creation is not known to have succeeded bears its input file's id until it is.
_UNCREATED = "file:"


@dataclass
class _Waiter:
    """A request on its way, with what its asker waits for."""

    request: BatchRequest
    answer: asyncio.Future[Response]
    asked: bool  # in this run; else only the batch of an earlier one holds it
    started: float = field(default_factory=time.monotonic)
    calls: int = 0


class BatchEndpoint:
    """Sends requests by batches.

    Args:
        provider: of the Batch API.
        cache: keeps the batches under way.
        url: base URL, under which they are kept.
        model: likewise.
        keep: stores an answer, if it is one, and gives it back with what it cost; called for every
            result before it is handed out.
        pace: times and numbers.
    """

    def __init__(
        self,
        provider: BatchProvider,
        cache: AnswerCache,
        *,
        url: str,
        model: str,
        keep: Callable[[BatchRequest, Response], Response],
        pace: BatchPace,
    ) -> None:
        self._provider = provider
        self._cache = cache
        self._url = url
        self._model = model
        self._keep = keep
        self._pace = pace
        self._waiters: dict[str, _Waiter] = {}
        self._queue: list[_Waiter] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: Exception | None = None
        # Both change when the provider says that too much waits already.
        self._most_requests = pace.most_requests
        self._turn: asyncio.Semaphore | None = None
        self._crowded = 0  # batches in a row

    def recover(self) -> None:
        """Take up the batches that earlier runs left under way."""
        for batch in self._cache.open_batches(self._url, self._model):
            waiters = [self._expect(one, asked=False) for one in read_requests(batch.requests)]
            stored_at = datetime.fromisoformat(batch.created_at).timestamp()
            self._start(self._resume(batch.id, stored_at, waiters))

    def holds(self, key: str) -> bool:
        """Whether a request is under way in a batch."""
        return key in self._waiters

    async def send(self, request: BatchRequest) -> Response:
        """The response to a request; takes as long as its batch.

        Raises:
            JudgeError: batches cannot be used.
            StorageError: a batch or an answer could not be stored.
        """
        if self._fault is not None:
            raise self._fault
        waiter = self._waiters.get(request.key)
        if waiter is None:
            # The batch of an earlier run may have ended since the asker looked.
            stored = self._cache.get(request.key)
            if stored is not None:
                return stored
            waiter = self._expect(request, asked=True)
            self._enqueue([waiter])
        waiter.asked = True
        # One asker that gives up does not call the batch off.
        return await asyncio.shield(waiter.answer)

    async def close(self) -> None:
        """Leave the batches under way to the next run."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._provider.close()

    def _expect(self, request: BatchRequest, *, asked: bool) -> _Waiter:
        # Two processes may have put the same request into a batch each: one waits for both.
        if request.key not in self._waiters:
            answer = asyncio.get_running_loop().create_future()
            self._waiters[request.key] = _Waiter(request, answer, asked)
        return self._waiters[request.key]

    def _enqueue(self, waiters: list[_Waiter]) -> None:
        """Put requests into the next batch, which leaves when it is full or no more come."""
        self._queue += waiters
        if self._timer is not None:
            self._timer.cancel()
        if len(self._queue) >= self._most_requests:
            self._submit_queue()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._pace.quiet, self._submit_queue)

    def _submit_queue(self) -> None:
        queue, self._queue = self._queue, []
        for share in self._shares(queue):
            self._start(self._in_turn(share))

    def _shares(self, waiters: list[_Waiter]) -> Iterator[list[_Waiter]]:
        """Cut into batches that keep the provider's limits."""
        share: list[_Waiter] = []
        room = 0
        for waiter in waiters:
            size = len(waiter.request.line())
            if share and (size > room or len(share) >= self._most_requests):
                yield share
                share = []
            if not share:
                room = self._pace.most_bytes
            share.append(waiter)
            room -= size
        if share:
            yield share

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._watched(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """What one batch runs into, all askers are told: none of them can go on."""
        try:
            await work
        except Exception as error:
            self._fault = error
            for waiter in self._waiters.values():
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
                    waiter.answer.exception()  # seen: some have no asker

    async def _in_turn(self, waiters: list[_Waiter]) -> None:
        if self._turn is None:
            await self._carry_out(waiters)
        else:
            async with self._turn:
                await self._carry_out(waiters)

    async def _carry_out(self, waiters: list[_Waiter]) -> None:
        """One batch from its upload to its answers."""
        content = b"".join(waiter.request.line() for waiter in waiters)
        file_id = await self._patiently(self._provider.upload, content)
        name = f"{_UNCREATED}{file_id}"
        requests = write_requests(waiter.request for waiter in waiters)
        self._cache.add_batch(name, self._url, self._model, requests)
        batch_id = await self._create(file_id, time.time(), in_doubt=False)
        self._cache.rename_batch(name, batch_id)
        for waiter in waiters:
            waiter.calls += 1
        await self._follow(batch_id, waiters)

    async def _resume(self, name: str, stored_at: float, waiters: list[_Waiter]) -> None:
        """The rest of a batch that an earlier run began."""
        batch_id = name
        if name.startswith(_UNCREATED):
            file_id = name.removeprefix(_UNCREATED)
            batch_id = await self._create(file_id, stored_at, in_doubt=True)
            self._cache.rename_batch(name, batch_id)
        await self._follow(batch_id, waiters)

    async def _create(self, file_id: str, stored_at: float, *, in_doubt: bool) -> str:
        """The batch of an uploaded file: found where an earlier attempt made it, else made."""
        wait = self._pace.first_poll
        for attempt in range(self._pace.attempts):
            if in_doubt:
                found = await self._look_for(file_id, stored_at)
                if found is not None:
                    return found
            try:
                return await self._provider.create(file_id)
            except BatchTroubleError as error:
                if attempt == self._pace.attempts - 1:
                    raise
                in_doubt, stored_at = error.in_doubt, time.time()
            await asyncio.sleep(wait)
            wait = self._longer(wait)
        raise AssertionError("unreachable")

    async def _look_for(self, file_id: str, stored_at: float) -> str | None:
        """The batch of a file, looked for until it would have appeared in the list."""
        while True:
            found = await self._patiently(self._provider.find, file_id, stored_at)
            left = stored_at + self._pace.settling - time.time()
            if found is not None or left <= 0:
                return found
            await asyncio.sleep(min(left, self._pace.first_poll))

    async def _follow(self, batch_id: str, waiters: list[_Waiter]) -> None:
        """Poll a batch until it has ended, then hand out what came of it."""
        wait = self._pace.first_poll
        while True:
            state = await self._patiently(self._provider.state, batch_id)
            if state is None or state.ended:
                break
            await asyncio.sleep(wait)
            wait = self._longer(wait)
        results: dict[str, Result] = {}
        for file_id in state.files if state else ():
            results |= read_results(await self._patiently(self._provider.content, file_id))
        self._crowded = self._crowded + 1 if state is not None and state.crowded else 0
        if 0 < self._crowded < self._pace.patience:
            await self._thin_out(batch_id, waiters)
        else:
            self._settle(batch_id, state, waiters, results)

    def _settle(
        self,
        batch_id: str,
        state: BatchState | None,
        waiters: list[_Waiter],
        results: dict[str, Result],
    ) -> None:
        """Commit the answers of a batch, then hand them out; the rest goes into the next one."""
        refused = {line: message for _, line, message in (state.errors if state else ())}
        missing = Result(0, state.summary if state else "the provider no longer knows the batch")
        again: list[_Waiter] = []
        done: list[tuple[_Waiter, Response]] = []
        for number, waiter in enumerate(waiters, start=1):
            result = results.get(waiter.request.key, missing)
            # A line that the validation names is at fault itself, the others are not.
            if number in refused:
                result = Result(400, refused[number])
            seconds = time.monotonic() - waiter.started
            response = Response(result.status_code, result.text, waiter.calls, seconds)
            if result.passing and waiter.calls < self._pace.attempts:
                again.append(waiter)
            else:
                done.append((waiter, response))
        with self._cache.transaction():
            done = [(waiter, self._keep(waiter.request, response)) for waiter, response in done]
            self._cache.end_batch(batch_id)
        for waiter, response in done:
            self._forget(waiter)
            if not waiter.answer.done():
                waiter.answer.set_result(response)
        self._ask_again(again)

    async def _thin_out(self, batch_id: str, waiters: list[_Waiter]) -> None:
        """Too many tokens wait at the provider: go on with half the size, one batch at a time."""
        self._most_requests = min(self._most_requests, max(1, len(waiters) // 2))
        self._turn = self._turn or asyncio.Semaphore(1)
        self._cache.end_batch(batch_id)
        await asyncio.sleep(self._pace.longest_poll)
        for waiter in waiters:
            waiter.calls = max(0, waiter.calls - 1)  # it was not tried
        self._ask_again(waiters)

    def _ask_again(self, waiters: list[_Waiter]) -> None:
        """Into the next batch, save what nobody in this run has asked for."""
        for waiter in waiters:
            if not waiter.asked:
                self._forget(waiter)
        wanted = [waiter for waiter in waiters if waiter.asked]
        if wanted:
            self._enqueue(wanted)

    def _forget(self, waiter: _Waiter) -> None:
        self._waiters.pop(waiter.request.key, None)

    async def _patiently(self, call: Callable[..., Coroutine[Any, Any, Any]], *values: Any) -> Any:
        """Repeat a harmless call while the provider cannot be reached."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(BatchTroubleError),
            wait=wait_exponential(self._pace.first_poll, max=self._pace.longest_poll),
            stop=stop_after_attempt(self._pace.patience),
            reraise=True,
        )
        return await retrying(call, *values)

    def _longer(self, wait: float) -> float:
        return min(1.5 * wait, self._pace.longest_poll)
