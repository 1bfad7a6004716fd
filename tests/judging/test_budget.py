"""Budgets: how they are written, who may still spend, and that a run stops at the limit."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_questions import ask, question
from judge_server import Fault, JudgeServer

from safesail.errors import ConfigurationError
from safesail.judging import Answer, Budget, Judge, Price, Prices

PRICES = Prices({"test-judge": Price(input=3.0, output=15.0)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        running.answer = lambda body: '{"verdict": 3}'
        yield running


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("5usd", 5.0, "usd"),
        ("0.50 usd", 0.5, "usd"),
        ("$5", 5.0, "usd"),
        (" $ 1,250.75 ", 1250.75, "usd"),
        (".5USD", 0.5, "usd"),
        ("2e6tokens", 2e6, "tokens"),
        ("500000 tokens", 5e5, "tokens"),
        ("500_000 Tokens", 5e5, "tokens"),
        ("1 token", 1.0, "tokens"),
        ("1,234,567 tokens", 1234567.0, "tokens"),
    ],
)
def test_budgets_as_users_write_them(text: str, amount: float, unit: str) -> None:
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit, budget.spent) == (amount, unit, 0.0)
    assert not budget.exhausted


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "usd", "5eur", "-5usd", "0usd", "0tokens", "1e999tokens", "nan usd", "5usd 3"),
        *("0,50usd", "1,5usd", "$1,5", "1,,usd", "1,50000tokens", "5_tokens", "1__0tokens"),
    ],
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Budget.parse(text)
    assert "\n" not in str(raised.value)


@given(st.text())
def test_any_text_is_a_budget_or_refused_in_one_way(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert Budget.parse(text).amount > 0


@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(1, 50), st.integers(-5, 5)), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(0, 1000),
)
def test_nobody_fails_while_others_may_give_back(
    amount: int, costs: list[tuple[int, int]], at_once: int, seed: int
) -> None:
    """Everybody ends; what is spent never passes the limit by more than the wrong estimates."""
    moments = random.Random(seed)
    budget = Budget(amount, "tokens")
    slots = asyncio.Semaphore(at_once)
    turned_away: list[float] = []
    under_way: list[int] = []

    async def one(cost: int, error: int) -> None:
        set_aside = await budget.reserve(lambda: (float(cost), float(cost)))
        if set_aside is None:
            assert budget.exhausted
            turned_away.append(cost)
            return
        assert not turned_away
        under_way.append(cost)
        async with slots:
            for _ in range(moments.randrange(3)):
                await asyncio.sleep(0)
        budget.settle(set_aside, max(0, cost + error))

    async def work() -> None:
        await asyncio.gather(*(one(cost, error) for cost, error in costs))

    asyncio.run(work())
    assert len(under_way) + len(turned_away) == len(costs)
    overrun = sum(max(0, error) for _, error in costs)
    assert budget.spent <= amount + overrun
    if sum(cost + max(0, error) for cost, error in costs) <= amount:
        assert not turned_away


def test_one_that_is_cancelled_while_it_waits_gives_its_place_to_others() -> None:
    async def work() -> float:
        budget = Budget(10, "tokens")
        first = await budget.reserve(lambda: (10.0, 10.0))
        assert first == 10.0
        waiting = [asyncio.create_task(budget.reserve(lambda: (5.0, 5.0))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        budget.settle(first, 0.0)
        waiting[1].cancel()  # it has been let through, and does not know yet
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[2].result() == 5.0
        # All that is left can be had.
        return await budget.reserve(lambda: (5.0, 5.0)) or 0.0

    assert asyncio.run(work()) == 5.0


def asked(
    server: JudgeServer, folder: Path, budget: Budget, count: int, **options: object
) -> list[Answer]:
    judge = Judge(
        server.url,
        "test-judge",
        cache=folder / "judge.sqlite",
        prices=PRICES,
        budget=budget,
        **options,  # type: ignore[arg-type]
    )
    return ask(judge, *(question(f"How many in {'x' * 400} {number}?") for number in range(count)))


@pytest.mark.parametrize("unit", ["tokens", "usd"])
def test_a_run_stops_at_the_limit_with_requests_under_way(
    server: JudgeServer, tmp_path: Path, unit: str
) -> None:
    """Answers of very different length, eight at once: the limit holds to a few per cent."""
    server.delay = 0.005
    lengths = random.Random(1)
    server.answer = lambda body: '{"verdict": 3}' + " " * lengths.randrange(0, 100)
    budget = Budget(8_000, "tokens") if unit == "tokens" else Budget(0.035, "usd")
    answers = asked(server, tmp_path, budget, 150)
    statuses = {answer.status for answer in answers}
    assert statuses == {"answered", "budget"}
    spent = sum(
        (answer.cost_usd or 0.0)
        if unit == "usd"
        else answer.prompt_tokens + answer.completion_tokens
        for answer in answers
    )
    assert budget.spent == pytest.approx(spent)
    assert 0.95 * budget.amount <= spent <= 1.03 * budget.amount
    assert budget.exhausted
    turned = [answer for answer in answers if answer.status == "budget"]
    assert {(one.calls, one.cached, one.model, one.prompt_tokens) for one in turned} == {
        (0, False, "", 0)
    }
    assert all(one.error and "budget" in one.error for one in turned)
    # The next run goes on where this one stopped; what was answered costs nothing.
    rest = Budget(1_000_000, "tokens")
    again = asked(server, tmp_path, rest, 150)
    assert {answer.status for answer in again} == {"answered"}
    assert sum(answer.cached for answer in again) == len(answers) - len(turned)
    assert len(server.requests) == 150


def test_cached_answers_are_given_though_nothing_is_left(
    server: JudgeServer, tmp_path: Path
) -> None:
    asked(server, tmp_path, Budget(1e6, "tokens"), 3)
    budget = Budget(1, "tokens")
    budget.spent = 1.0
    answers = asked(server, tmp_path, budget, 5)
    assert [answer.status for answer in answers] == ["answered"] * 3 + ["budget"] * 2
    assert budget.spent == 1.0
    assert [answer.cost_usd is not None and answer.cost_usd > 0 for answer in answers[:3]] == [
        True
    ] * 3


def test_a_budget_below_one_question_passes_one_at_most(
    server: JudgeServer, tmp_path: Path
) -> None:
    answers = asked(server, tmp_path, Budget(10, "tokens"), 5)
    assert sorted(answer.status for answer in answers) == ["answered"] + ["budget"] * 4
    assert len(server.requests) == 1


def test_failures_cost_nothing_and_uncounted_answers_their_estimate(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults += [Fault(status=500), Fault(usage={})]
    budget = Budget(1e6, "tokens")
    failed, uncounted = asked(server, tmp_path, budget, 2, max_retries=0, concurrency=1)
    assert (failed.status, failed.cost_usd) == ("failed", 0.0)
    assert (uncounted.status, uncounted.cost_usd) == ("answered", None)
    # Characters / 4 and all the room that the answer had.
    assert budget.spent == pytest.approx((len("How many in  1?") + 400) / 4 + 50, abs=1)


def test_a_second_question_that_the_budget_forbids_leaves_the_first_paid(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.answer = lambda body: "three"
    (answer,) = asked(server, tmp_path, Budget(110, "tokens"), 1)
    assert (answer.status, answer.calls) == ("budget", 1)
    assert answer.prompt_tokens > 100


def test_dollars_need_prices_of_both_judges(server: JudgeServer, tmp_path: Path) -> None:
    budget = Budget(5, "usd")
    cache = tmp_path / "judge.sqlite"
    with pytest.raises(ConfigurationError, match=r'\[models\."gpt-4o"\]') as raised:
        # A public price does not hold for an endpoint on this machine.
        Judge(server.url, "gpt-4o", cache=cache, budget=budget)
    assert "judge.prices" in str(raised.value)
    Judge(server.url, "test-judge", cache=cache, prices=PRICES, budget=budget)
    Judge(server.url, "gpt-4o", cache=cache, budget=Budget(5, "tokens"))
    fallback = Judge(server.url, "other", cache=cache)
    with pytest.raises(ConfigurationError, match="price of other"):
        Judge(
            server.url, "test-judge", cache=cache, prices=PRICES, budget=budget, fallback=fallback
        )
