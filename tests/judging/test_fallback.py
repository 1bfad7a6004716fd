"""What one judge refuses, another one is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_questions import Verdict, ask, question
from judge_server import Fault, JudgeServer

from safesail.judging import Budget, Judge, Price, Prices

PRICES = Prices({"first": Price(input=1, output=1), "second": Price(input=10, output=10)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        running.answer = lambda body: (
            '{"verdict": 3}' if body["model"] == "second" else "I'm sorry, I can't help with that."
        )
        yield running


def pair(server: JudgeServer, folder: Path, budget: Budget | None = None) -> Judge:
    cache = folder / "judge.sqlite"
    second = Judge(server.url, "second", cache=cache, prices=PRICES)
    return Judge(server.url, "first", cache=cache, prices=PRICES, budget=budget, fallback=second)


def test_the_fallback_answers_and_is_named(server: JudgeServer, tmp_path: Path) -> None:
    (answer,) = ask(pair(server, tmp_path), question())
    assert (answer.value, answer.status, answer.model) == (Verdict(verdict=3), "answered", "second")
    assert [body["model"] for body in server.requests] == ["first", "second"]
    # 9 characters of question; 34 and 14 of answers.
    first, second = (2, 9), (2, 4)
    assert (answer.prompt_tokens, answer.completion_tokens) == (4, 13)
    assert answer.cost_usd == pytest.approx((sum(first) + 10 * sum(second)) / 1e6)
    assert (answer.calls, answer.cached) == (2, False)
    (again,) = ask(pair(server, tmp_path), question())
    assert (again.calls, again.cached, again.cost_usd) == (0, True, answer.cost_usd)
    assert len(server.requests) == 2


def test_it_is_asked_only_what_was_refused(server: JudgeServer, tmp_path: Path) -> None:
    server.faults += [Fault(content='{"verdict": 1}'), Fault(status=413)]
    answers = [ask(pair(server, tmp_path), question(str(number)))[0] for number in range(2)]
    assert [(one.status, one.model) for one in answers] == [
        ("answered", "first"),
        ("failed", "first"),
    ]
    assert {body["model"] for body in server.requests} == {"first"}


def test_refused_by_both_is_refused(server: JudgeServer, tmp_path: Path) -> None:
    server.answer = lambda body: "I cannot rate this."
    (answer,) = ask(pair(server, tmp_path), question())
    assert (answer.status, answer.calls) == ("refused", 2)


def test_both_spend_one_budget(server: JudgeServer, tmp_path: Path) -> None:
    budget = Budget(1_000, "tokens")
    answers = ask(
        pair(server, tmp_path, budget), *(question("x" * 160 + str(n)) for n in range(40))
    )
    spent = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)
    assert budget.spent == spent
    assert 800 < spent <= 1_050
    assert {answer.status for answer in answers} == {"answered", "budget"}


def test_it_has_its_own_way_of_asking(server: JudgeServer, tmp_path: Path) -> None:
    with JudgeServer() as other:
        other.answer = lambda body: '{"verdict": 3}'
        other.unsupported = {"json_schema", "temperature"}
        cache = tmp_path / "judge.sqlite"
        judge = Judge(
            server.url, "first", cache=cache, fallback=Judge(other.url, "second", cache=cache)
        )
        assert ask(judge, question())[0].model == "second"
        assert other.requests[-1]["response_format"] == {"type": "json_object"}
        assert server.requests[-1]["response_format"]["type"] == "json_schema"
