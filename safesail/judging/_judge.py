"""The judge: typed questions in, answers out, each paid for once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from safesail.errors import ConfigurationError
from safesail.judging._batch_files import BatchPace
from safesail.judging._budget import Budget
from safesail.judging._cache import AnswerCache
from safesail.judging._channel import Channel
from safesail.judging._credentials import checked_url, key_for
from safesail.judging._dialects import Options
from safesail.judging._parsing import read_completion, sendable
from safesail.judging._prices import Prices
from safesail.judging._questions import Answer, Question, Status, render
from safesail.judging._responses import Response

# Thinking counts as completion at some endpoints: a cut answer is asked again with more room.
_MORE_ROOM = 4


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
        concurrency: most requests under way at once; fewer while the endpoint limits the rate.
        timeout: seconds that one request may take.
        max_retries: retries of a request after a rate limit, server error, time-out or broken
            connection.
        reasoning_effort: how hard a reasoning model should think, in the endpoint's words; None
            leaves it to the endpoint.
        prices: by default the public list. For an endpoint on this machine only a user's own
            prices hold.
        budget: what this judge and its fallback may spend together.
        fallback: judge that is asked what this one refuses. It is entered and left with this one,
            and uses this one's cache and budget.
        batch: ask through the Batch API, at the given pace.

    Attributes:
        url: see there.
        model: see there.
        concurrency: how many questions it is worth asking at once: see there; with batches, what
            their pace says.
        fallback: see there.
        budget: see there.

    Raises:
        ConfigurationError: the budget is in dollars, and a model has no price.
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
        reasoning_effort: str | None = None,
        prices: Prices | None = None,
        budget: Budget | None = None,
        fallback: Judge | None = None,
        batch: bool | BatchPace = False,
    ) -> None:
        self.url = checked_url(url, key_variable)
        self.model = model
        self._pace = BatchPace() if batch is True else batch or None
        self.concurrency = concurrency if self._pace is None else self._pace.at_once
        self.fallback = fallback
        self._key = key_for(self.url, key_variable)
        self._cache_path = cache
        self._timeout = timeout
        self._max_retries = max_retries
        self._options = Options(model, reasoning_effort)
        prices = prices or Prices.load()
        self._price = prices.at(self.url).find(model)
        self._spend(budget)

    async def __aenter__(self) -> Self:
        self._cache = AnswerCache(self._cache_path)
        try:
            self._enter(self._cache)
        except BaseException:
            self._cache.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._leave()
        finally:
            await self._cache.drain()
            self._cache.close()

    async def ask(self, question: Question, *, replicate: int = 0) -> Answer:
        """Ask a question; an answer that cannot be read is asked once more, the error shown.

        Args:
            question: what to ask.
            replicate: number of an independent repetition, asked and cached on its own.

        Raises:
            JudgeError: the endpoint cannot be reached, or refuses every request.
            StorageError: an answer could not be stored or looked up.
        """
        answer = await self._ask(question, replicate)
        if answer.status == "refused" and self.fallback is not None:
            second = (await self.fallback.ask(question, replicate=replicate)).after(answer)
            return replace(second, by_fallback=bool(second.model))
        return answer

    async def _ask(self, question: Question, replicate: int) -> Answer:
        try:
            response = await self._channel.response(question, replicate)
        except UnicodeEncodeError:
            # Half a surrogate pair is no character: it could not be sent.
            messages = [
                {name: sendable(text) for name, text in message.items()}
                for message in question.messages
            ]
            question = replace(question, messages=messages)
            response = await self._channel.response(question, replicate)
        first = self._interpret(response, question)
        if first.status != "unparseable" or response is None or response.completion is None:
            return first
        completion = response.completion
        # Some endpoints take no empty message, so an empty answer is not shown again.
        said = [{"role": "assistant", "content": completion.content}] if completion.content else []
        room = _MORE_ROOM if completion.finish_reason == "length" else 1
        again = replace(
            question,
            messages=[*question.messages, *said, *render("repair", error=first.error).messages],
            max_tokens=question.max_tokens * room,
        )
        second = self._interpret(await self._channel.response(again, replicate), question)
        return second.after(first)

    def _interpret(self, response: Response | None, question: Question) -> Answer:
        if response is None:
            cost = None if self._price is None else 0.0
            budget = f"{self.budget.amount:g} {self.budget.unit}" if self.budget else ""
            spent = f"the budget of {budget} is spent: run again with another one to go on"
            return Answer(None, "budget", spent, 0, 0, 0, cost, 0, False, "")
        usage, cost = response.usage, response.cost_usd
        value, error = None, None
        status: Status
        if response.completion is not None:
            reading = read_completion(response.completion, question)
            value, status, error = reading.value, reading.status, reading.error
        else:
            status, error = "refused" if response.filtered else "failed", response.summary
        return Answer(
            value=value,
            status=status,
            error=error,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=self._channel.cost(response) if cost is None else cost,
            calls=response.calls,
            cached=response.calls == 0,
            model=self.model,
        )

    def _spend(self, budget: Budget | None) -> None:
        """Take a budget as one's own, and as the fallback's."""
        if budget is not None and budget.unit == "usd" and self._price is None:
            raise ConfigurationError(
                f"a budget in dollars needs the price of {self.model} at {self.url}, which the "
                f'price list lacks: write [models."{self.model}"] with `input` and `output` '
                "(dollars per million tokens) into a TOML file and name that as judge.prices, or "
                "give the budget in tokens"
            )
        self.budget = budget
        if self.fallback is not None:
            self.fallback._spend(budget)

    def _enter(self, cache: AnswerCache) -> None:
        self._channel = Channel(
            self.url,
            self._key,
            self._options,
            cache=cache,
            price=self._price,
            budget=self.budget,
            concurrency=self.concurrency,
            timeout=self._timeout,
            max_retries=self._max_retries,
            pace=self._pace,
        )
        if self.fallback is not None:
            self.fallback._enter(cache)

    async def _leave(self) -> None:
        try:
            await self._channel.close()
        finally:
            if self.fallback is not None:
                await self.fallback._leave()
