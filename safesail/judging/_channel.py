"""One model at one endpoint, with its stored answers: a response is found, or paid for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from safesail.judging._batch_files import BatchPace, BatchRequest
from safesail.judging._budget import Budget, Estimate
from safesail.judging._cache import AnswerCache, Entry
from safesail.judging._dialects import Dialect, Options
from safesail.judging._estimator import Estimator
from safesail.judging._keys import answer_key
from safesail.judging._patience import Patience
from safesail.judging._prices import Price
from safesail.judging._questions import Question
from safesail.judging._responses import Response

if TYPE_CHECKING:
    from safesail.judging._endpoint import Endpoint

_BAD_REQUEST = (400, 422)


class Channel:
    """Finds the stored response to a question, or gets one and stores it before it is used.

    Args:
        url: base URL.
        key: sent with every request.
        options: asked for with every question.
        cache: of the answers.
        price: of the model, if it has one.
        budget: what may be spent; None for all.
        concurrency: most requests under way at once.
        timeout: seconds that one request may take.
        max_retries: of a request.
        pace: of batches; None where requests are sent one by one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        options: Options,
        *,
        cache: AnswerCache,
        price: Price | None,
        budget: Budget | None,
        concurrency: int,
        timeout: float,
        max_retries: int,
        pace: BatchPace | None,
    ) -> None:
        self._url = url
        self._options = options
        self._cache = cache
        self._price = price
        self._budget = budget
        self._estimator = Estimator()
        self._account_key = key
        self._concurrency = concurrency
        self._timeout = timeout
        self._max_retries = max_retries
        # What the endpoint was found to take, the one in force first; empty until it answers.
        self._dialects = [
            Dialect(**json.loads(text)) for text in cache.dialects(url, options.model)
        ]
        self._first_contact = asyncio.Lock()
        self._patience = Patience(url, concurrency)
        self._spenders = asyncio.Semaphore(concurrency)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._batches = None
        if pace is not None:
            from safesail.judging._batch import BatchEndpoint
            from safesail.judging._batch_provider import BatchProvider

            self._batches = BatchEndpoint(
                BatchProvider(url, key, timeout=timeout, max_retries=max_retries),
                cache,
                url=url,
                model=options.model,
                keep=self._keep_batched,
                pace=pace,
            )
            self._batches.recover()

    async def response(self, question: Question, replicate: int) -> Response | None:
        """The stored response to a question, or a new one; None where the budget allows none.

        Raises:
            JudgeError: the endpoint cannot be reached, or refuses every request.
            StorageError: an answer could not be stored or looked up.
        """
        found = self._stored(question, replicate)
        if found is not None:
            return found
        # Two identical questions under way: the second waits, then finds the first one's answer.
        name = self._key(question, replicate, Dialect())
        turn = self._turns.setdefault(name, asyncio.Lock())
        waited = turn.locked()
        async with turn:
            if waited:
                found = self._stored(question, replicate)
            return found or await self._fetch(question, replicate)

    def cost(self, response: Response, *, batch: bool = False) -> float | None:
        """US dollars of a response by the price list; None where they cannot be known."""
        usage = response.usage
        if self._price is None or (response.status_code == 200 and not usage.known):
            return None
        return self._price.cost(usage.prompt_tokens, usage.completion_tokens, batch=batch)

    async def close(self) -> None:
        """Close the connections; batches under way are left to the next run."""
        if self._batches is not None:
            await self._batches.close()
        if "_endpoint" in vars(self):
            await self._endpoint.close()

    def _key(self, question: Question, replicate: int, dialect: Dialect) -> str:
        return answer_key(self._url, dialect, self._options, question, replicate)

    def _stored(self, question: Question, replicate: int) -> Response | None:
        for dialect in self._dialects:
            key = self._key(question, replicate, dialect)
            found = self._cache.get(key)
            if found is not None and found.usable:
                return found
            if found is not None:
                # Never stored like that: the file was damaged where SQLite does not notice it.
                self._cache.drop(key)
        return None

    async def _fetch(self, question: Question, replicate: int) -> Response | None:
        """A new response; the first of a run goes alone, to learn if and how to ask the rest."""
        if self._is_held(question, replicate):
            # An earlier run's batch holds it: it is paid for.
            return await self._negotiate(question, replicate, batched=True)
        if not self._patience.contacted:
            async with self._first_contact:
                if not self._patience.contacted and not self._broke:
                    await self._endpoint.reach()
                    return await self._pay(question, replicate, batched=False)
        return await self._pay(question, replicate, batched=self._batches is not None)

    @cached_property
    def _endpoint(self) -> Endpoint:
        # Made and imported where something is sent: a run that finds all answers in the cache
        # does without the client library, which takes half a second.
        from safesail.judging._endpoint import Endpoint

        return Endpoint(
            self._url,
            self._account_key,
            concurrency=self._concurrency,
            timeout=self._timeout,
            max_retries=self._max_retries,
        )

    @property
    def _broke(self) -> bool:
        return self._budget is not None and self._budget.exhausted

    def _is_held(self, question: Question, replicate: int) -> bool:
        return self._batches is not None and any(
            self._batches.holds(self._key(question, replicate, dialect))
            for dialect in self._dialects
        )

    async def _pay(self, question: Question, replicate: int, *, batched: bool) -> Response | None:
        """A new response, out of the budget."""
        if self._budget is None:
            return await self._negotiate(question, replicate, batched=batched)

        def estimate() -> tuple[float, float]:
            cautious, likely = self._estimator.estimate(question)
            return self._worth(*cautious, batched), self._worth(*likely, batched)

        # One by one, no more set aside than can be under way: those that wait would set aside
        # what was expected when they came.
        async with contextlib.nullcontext() if batched else self._spenders:
            return await self._spend(question, replicate, estimate, batched=batched)

    async def _spend(
        self, question: Question, replicate: int, estimate: Estimate, *, batched: bool
    ) -> Response | None:
        assert self._budget is not None
        set_aside = await self._budget.reserve(estimate)
        if set_aside is None:
            return None
        spent = 0.0
        try:
            response = await self._negotiate(question, replicate, batched=batched)
            usage = response.usage
            self._estimator.learn(question, usage)
            if usage.known:
                spent = self._worth(usage.prompt_tokens, usage.completion_tokens, batched)
            elif response.status_code == 200:
                spent = set_aside  # it cost something, but the endpoint does not count
            return response
        finally:
            self._budget.settle(set_aside, spent)

    def _worth(self, prompt_tokens: int, completion_tokens: int, batched: bool) -> float:
        """Tokens in the unit of the budget."""
        if self._price is not None and self._budget is not None and self._budget.unit == "usd":
            return self._price.cost(prompt_tokens, completion_tokens, batch=batched)
        return float(prompt_tokens + completion_tokens)

    async def _negotiate(self, question: Question, replicate: int, *, batched: bool) -> Response:
        """Send a question in the dialect in force, or in simpler ones where that is refused."""
        options = self._options
        dialect = self._dialects[0] if self._dialects else Dialect()
        calls = 0
        while True:
            key, body = self._key(question, replicate, dialect), dialect.body(options, question)
            request = BatchRequest(key, question.task, question.version, replicate, body)
            if batched and self._batches is not None:
                response = await self._batches.send(request)
            else:
                response = await self._endpoint.send(json.loads(body))
            calls += response.calls
            if response.status_code not in _BAD_REQUEST or response.filtered:
                break
            # Once the endpoint has answered, a refusal that names no option is not the dialect's.
            simpler = dialect.simpler(response, options, guess=not self._dialects)
            if simpler is None:
                break
            dialect = simpler
        if response.usable and dialect not in self._dialects:
            # First the dialect, without which the answer could not be found again.
            self._cache.add_dialect(self._url, options.model, json.dumps(asdict(dialect)))
            self._dialects.insert(0, dialect)
        if response.calls:
            response = replace(response, calls=calls, cost_usd=self.cost(response, batch=batched))
        if response.usable and not batched:
            await self._cache.store(self._entry(request, response))
        if not batched:
            self._patience.note(response)
        return response

    def _keep_batched(self, request: BatchRequest, response: Response) -> Response:
        response = replace(response, cost_usd=self.cost(response, batch=True))
        if response.usable:
            self._cache.put(self._entry(request, response))
        return response

    def _entry(self, request: BatchRequest, response: Response) -> Entry:
        usage = response.usage
        return Entry(
            key=request.key,
            url=self._url,
            model=self._options.model,
            task=request.task,
            version=request.version,
            replicate=request.replicate,
            request=request.body,
            status_code=response.status_code,
            response=response.text,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=response.cost_usd,
            seconds=response.seconds,
        )
