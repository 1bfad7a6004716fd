"""How many requests leave at once: properties of the limiter, and behaviour over real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_questions import ask, question
from judge_server import Fault, JudgeServer

from safesail.judging import Judge
from safesail.judging._concurrency import AdaptiveLimiter


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as running:
        running.answer = lambda body: '{"verdict": 3}'
        yield running


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=200))
def test_allowed_stays_between_one_and_the_most(most: int, outcomes: list[bool]) -> None:
    async def work() -> None:
        limiter = AdaptiveLimiter(most)
        for good in outcomes:
            async with limiter.slot() as round:
                before = limiter.allowed
                if good:
                    limiter.succeeded()
                    assert before <= limiter.allowed <= before + 1
                else:
                    limiter.crowded(round)
                    assert limiter.allowed == max(1, before // 2)
            assert 1 <= limiter.allowed <= most
        # However bad it was, good responses bring back what the user allowed.
        for _ in range(most * most):
            limiter.succeeded()
        assert limiter.allowed == most

    asyncio.run(work())


@given(st.integers(1, 12), st.lists(st.sampled_from(["good", "crowded"]), min_size=1, max_size=60))
def test_never_more_under_way_than_allowed_when_they_left(most: int, outcomes: list[str]) -> None:
    under_way = 0

    async def one(limiter: AdaptiveLimiter, outcome: str) -> None:
        nonlocal under_way
        async with limiter.slot() as round:
            under_way += 1
            assert under_way <= most
            await asyncio.sleep(0)
            if outcome == "good":
                limiter.succeeded()
            else:
                limiter.crowded(round)
            under_way -= 1

    async def work() -> None:
        limiter = AdaptiveLimiter(most)
        await asyncio.gather(*(one(limiter, outcome) for outcome in outcomes))
        assert limiter.under_way == 0

    asyncio.run(work())


def test_those_that_left_together_halve_it_once() -> None:
    async def work() -> list[int]:
        limiter = AdaptiveLimiter(16)

        async def crowded() -> None:
            async with limiter.slot() as round:
                await asyncio.sleep(0.01)
                limiter.crowded(round)

        seen = []
        for _ in range(3):
            await asyncio.gather(*(crowded() for _ in range(limiter.allowed)))
            seen.append(limiter.allowed)
        return seen

    assert asyncio.run(work()) == [8, 4, 2]


def test_a_pause_holds_for_all() -> None:
    async def work() -> list[float]:
        limiter = AdaptiveLimiter(4)
        started = time.monotonic()
        async with limiter.slot() as round:
            limiter.crowded(round, 0.2)

        async def leave() -> float:
            async with limiter.slot():
                return time.monotonic() - started

        return await asyncio.gather(*(leave() for _ in range(6)))

    assert min(asyncio.run(work())) >= 0.2


def test_a_crowded_endpoint_is_asked_less_at_once(server: JudgeServer, tmp_path: Path) -> None:
    """The server takes three at once; the judge, allowed sixteen, finds that out."""
    server.delay = 0.02
    most = 3
    refused = 0
    answer = server._respond

    def respond(body: dict, fault: Fault):  # type: ignore[no-untyped-def]
        nonlocal refused
        if server._under_way > most:
            refused += 1
            return answer(body, Fault(status=429, headers={"retry-after-ms": "20"}))
        return answer(body, fault)

    server._respond = respond  # type: ignore[method-assign]
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", concurrency=16, max_retries=30)
    answers = ask(judge, *(question(str(number)) for number in range(120)))
    assert {answer.status for answer in answers} == {"answered"}
    assert sum(answer.calls for answer in answers) == len(server.requests) == 120 + refused
    # Without adapting, sixteen at once would be refused more often than answered.
    assert refused < 120
