"""The judge against a real server on loopback, with faults on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Fault, JudgeServer
from pydantic import BaseModel, ConfigDict

from safesail.errors import JudgeError
from safesail.judging import Answer, Judge, Question

KEY = "sk-a-key-that-must-never-be-stored"


class Verdict(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    verdict: int


def question(text: str = "How many?") -> Question:
    return Question("count", "count/1", [{"role": "user", "content": text}], Verdict, 50)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        running.answer = lambda body: '{"verdict": 3}'
        yield running


@pytest.fixture
def judge(server: JudgeServer, tmp_path: Path) -> Judge:
    return Judge(server.url, "test-judge", cache=tmp_path / "judge.sqlite", max_retries=2)


def ask(judge: Judge, *questions: Question, **options: Any) -> list[Answer]:
    async def work() -> list[Answer]:
        async with judge:
            return await asyncio.gather(*(judge.ask(one, **options) for one in questions))

    return asyncio.run(work())


def test_answers_in_the_asked_type(server: JudgeServer, judge: Judge) -> None:
    (answer,) = ask(judge, question())
    assert answer == Answer(
        value=Verdict(verdict=3),
        status="answered",
        error=None,
        prompt_tokens=len("How many?") // 4,
        completion_tokens=14 // 4 + 1,
        reasoning_tokens=0,
        cost_usd=None,
        calls=1,
        cached=False,
        model="test-judge",
    )
    (body,) = server.requests
    assert body["temperature"] == 0
    assert body["max_tokens"] == 50
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == Verdict.model_json_schema()


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"verdict": 3}\n```',
        '<think>{"verdict": 9}? No.</think>\n{"verdict": 3}',
        'Here it is: {"verdict": 3}. Anything else?',
    ],
)
def test_reads_json_in_its_wrappings(server: JudgeServer, judge: Judge, content: str) -> None:
    server.answer = lambda body: content
    assert ask(judge, question())[0].value == Verdict(verdict=3)


def test_unreadable_answer_is_asked_again_with_the_error(server: JudgeServer, judge: Judge) -> None:
    server.faults.append(Fault(content='{"verdict": "many"}'))
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("answered", 2)
    again = server.requests[1]["messages"]
    assert again[0] == {"role": "user", "content": "How many?"}
    assert again[1] == {"role": "assistant", "content": '{"verdict": "many"}'}
    assert "verdict" in again[2]["content"]
    assert "valid integer" in again[2]["content"]


def test_unreadable_twice_is_unparseable_and_not_asked_a_third_time(
    server: JudgeServer, judge: Judge
) -> None:
    server.answer = lambda body: "three"
    (answer,) = ask(judge, question())
    assert (answer.status, answer.value, answer.calls) == ("unparseable", None, 2)
    assert answer.error is not None
    assert len(server.requests) == 2


def test_cut_answer_gets_more_room(server: JudgeServer, judge: Judge) -> None:
    server.faults.append(Fault(content='{"verd', finish_reason="length"))
    (answer,) = ask(judge, question())
    assert answer.status == "answered"
    assert [body["max_tokens"] for body in server.requests] == [50, 200]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(refusal="I will not rate this."),
        Fault(content="", finish_reason="content_filter"),
        Fault(content="I'm sorry, but I can't help with that."),
        Fault(content="抱歉，我无法回答这个问题。"),
        Fault(status=400, error={"message": "filtered", "code": "content_filter"}),
        Fault(status=403, error={"code": 403, "metadata": {"flagged_input": "..."}}),
    ],
)
def test_refusal_is_told_from_failure_and_not_argued_with(
    server: JudgeServer, judge: Judge, fault: Fault
) -> None:
    server.faults.append(fault)
    (answer,) = ask(judge, question())
    assert (answer.status, answer.value, answer.calls) == ("refused", None, 1)
    assert answer.error


def test_refused_words_inside_an_answer_are_no_refusal(server: JudgeServer, judge: Judge) -> None:
    server.answer = lambda body: 'I\'m sorry to say: {"verdict": 1}'
    assert ask(judge, question())[0].value == Verdict(verdict=1)


def test_second_run_sends_nothing(server: JudgeServer, judge: Judge) -> None:
    server.faults += [Fault(refusal="No."), Fault(content="bad"), Fault(content="worse")]
    questions = [question(text) for text in ("a", "b", "c", "d")]
    first = [ask(judge, one)[0] for one in questions]
    assert [answer.status for answer in first] == ["refused", "unparseable", "answered", "answered"]
    sent = len(server.requests)
    second = ask(judge, *questions)
    assert len(server.requests) == sent == 5
    assert [answer.cached for answer in second] == [True] * 4
    assert [answer.calls for answer in second] == [0] * 4
    assert [(a.status, a.value, a.prompt_tokens) for a in second] == [
        (a.status, a.value, a.prompt_tokens) for a in first
    ]


def test_replicates_models_and_endpoints_are_cached_apart(
    server: JudgeServer, judge: Judge, tmp_path: Path
) -> None:
    other = Judge(server.url, "another", cache=tmp_path / "judge.sqlite")
    for asked, replicate in ((judge, 0), (judge, 1), (other, 0), (judge, 1)):
        ask(asked, question(), replicate=replicate)
    assert len(server.requests) == 3


def test_identical_questions_under_way_are_sent_once(server: JudgeServer, judge: Judge) -> None:
    server.delay = 0.1
    answers = ask(judge, *[question()] * 5)
    assert len(server.requests) == 1
    assert sum(answer.calls for answer in answers) == 1
    assert [answer.value for answer in answers] == [Verdict(verdict=3)] * 5


def test_answers_are_on_disk_before_they_are_used(
    server: JudgeServer, judge: Judge, tmp_path: Path
) -> None:
    async def work() -> list[tuple[str, int]]:
        async with judge:
            await judge.ask(question())
            # Another connection sees committed rows only.
            with sqlite3.connect(tmp_path / "judge.sqlite") as reader:
                return reader.execute("SELECT response, prompt_tokens FROM answers").fetchall()

    ((response, prompt_tokens),) = asyncio.run(work())
    assert json.loads(response)["choices"][0]["message"]["content"] == '{"verdict": 3}'
    assert prompt_tokens == 2


def test_rate_limit_is_retried_after_the_time_that_it_asks_for(
    server: JudgeServer, judge: Judge
) -> None:
    server.faults.append(Fault(status=429, headers={"Retry-After": "1.2"}))
    started = time.monotonic()
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("answered", 2)
    assert time.monotonic() - started >= 1.2


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(cut=True)])
def test_passing_trouble_is_retried(server: JudgeServer, judge: Judge, fault: Fault) -> None:
    server.faults.append(fault)
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("answered", 2)


def test_hanging_request_times_out_and_is_retried(server: JudgeServer, tmp_path: Path) -> None:
    server.faults.append(Fault(hang=30))
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", timeout=0.3, max_retries=1)
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("answered", 2)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(raw="<html>proxy</html>"), Fault(status=413)],
    ids=["unavailable", "no completion", "too long"],
)
def test_failures_are_told_and_never_cached(
    server: JudgeServer, judge: Judge, fault: Fault
) -> None:
    server.faults += [fault] * 3
    (answer,) = ask(judge, question())
    assert (answer.status, answer.value) == ("failed", None)
    assert answer.error
    assert answer.calls == len(server.requests)
    server.faults.clear()
    (answer,) = ask(judge, question())
    assert (answer.status, answer.cached) == ("answered", False)


@pytest.mark.parametrize(
    ("unsupported", "vague", "expected"),
    [
        ({"json_schema"}, False, {"json_object"}),
        ({"json_schema", "json_object"}, False, set()),
        ({"json_schema", "json_object"}, True, set()),
        ({"max_tokens", "temperature"}, False, {"json_schema", "max_completion_tokens"}),
    ],
)
def test_what_an_endpoint_refuses_is_found_out_once_and_remembered(
    server: JudgeServer, judge: Judge, unsupported: set[str], vague: bool, expected: set[str]
) -> None:
    server.unsupported, server.vague = unsupported, vague
    questions = [question(str(number)) for number in range(6)]
    answers = ask(judge, *questions)
    assert {answer.status for answer in answers} == {"answered"}
    assert len(server.requests) == len(questions) + len(unsupported)
    assert sum(answer.calls for answer in answers) == len(server.requests)
    last = server.requests[-1]
    used = {"max_completion_tokens"} & last.keys()
    used |= {last["response_format"]["type"]} if "response_format" in last else set()
    assert used == expected
    sent = len(server.requests)
    ask(judge, *questions)
    assert len(server.requests) == sent
    ask(judge, question("new"))
    assert len(server.requests) == sent + 1


def test_a_refused_long_question_changes_nothing_for_the_rest(
    server: JudgeServer, judge: Judge
) -> None:
    ask(judge, question("first"))
    server.faults.append(Fault(status=400, error={"message": "context length exceeded"}))
    assert ask(judge, question("long"))[0].status == "failed"
    assert ask(judge, question("next"))[0].status == "answered"
    assert server.requests[-1]["response_format"]["type"] == "json_schema"
    assert len(server.requests) == 3


def test_no_more_requests_at_once_than_allowed(server: JudgeServer, tmp_path: Path) -> None:
    server.delay = 0.05
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", concurrency=3)
    ask(judge, *(question(str(number)) for number in range(12)))
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault(status=401), "check the key"),
        (Fault(status=402), "no credit"),
        (Fault(status=403), "no access"),
        (Fault(status=404), "`test-judge`"),
        (Fault(status=429, error={"message": "x", "code": "insufficient_quota"}), "no credit"),
    ],
)
def test_hopeless_endpoint_stops_the_run(
    server: JudgeServer, judge: Judge, fault: Fault, advice: str
) -> None:
    server.faults += [fault] * 3
    with pytest.raises(JudgeError, match=advice) as raised:
        ask(judge, question())
    assert "\n" not in str(raised.value)


def test_unreachable_endpoint_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    judge = Judge(f"http://127.0.0.1:{port}/v1", "m", cache=tmp_path / "judge.sqlite")
    started = time.monotonic()
    with pytest.raises(JudgeError, match=rf"no judge can be reached at http://127.0.0.1:{port}"):
        ask(judge, *(question(str(number)) for number in range(20)))
    assert time.monotonic() - started < 5


def test_key_comes_from_the_environment_and_goes_nowhere_else(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", key_variable="JUDGE_KEY")
    server.faults.append(Fault(content=f'{{"verdict": 3, "echo": "{KEY}"}}'))
    ask(judge, question())
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.faults += [Fault(status=401, error={"message": f"bad key {KEY}"})]
    with pytest.raises(JudgeError) as raised:
        ask(judge, question("again"))
    assert KEY not in str(raised.value)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"verdict" in stored
    assert KEY.encode() not in stored


def test_missing_key_is_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(JudgeError, match="JUDGE_KEY"):
        Judge("https://judge.example/v1", "m", cache=tmp_path / "j", key_variable="JUDGE_KEY")
    for local in ("http://localhost:1/v1", "http://127.0.0.1:1", "http://[::1]:1/v1"):
        Judge(local, "m", cache=tmp_path / "j", key_variable="JUDGE_KEY")


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://judge.example", "https://me:secret@judge.example/v1"]
)
def test_unusable_urls_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(JudgeError) as raised:
        Judge(url, "m", cache=tmp_path / "j")
    assert "secret" not in str(raised.value)


def test_a_question_forbidden_after_an_answer_fails_alone(
    server: JudgeServer, tmp_path: Path
) -> None:
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", concurrency=1)
    server.faults += [Fault(), Fault(status=403)]
    answers = ask(judge, *(question(text) for text in "abc"))
    assert sorted(answer.status for answer in answers) == ["answered", "answered", "failed"]
    (forbidden,) = (answer for answer in answers if answer.status == "failed")
    assert "403" in (forbidden.error or "")


@pytest.mark.parametrize("tokens", [10**20, 1e300])
def test_impossible_token_counts_lose_no_answer(
    server: JudgeServer, judge: Judge, tokens: float
) -> None:
    server.faults.append(Fault(usage={"prompt_tokens": 7, "completion_tokens": tokens}))
    (answer,) = ask(judge, question())
    assert answer.status == "answered"
    assert answer.prompt_tokens == 7
    assert answer.completion_tokens == 0
    assert ask(judge, question())[0].cached


def test_an_answer_in_parts_is_read(server: JudgeServer, judge: Judge) -> None:
    parts = [{"type": "text", "text": '{"ver'}, {"type": "text", "text": 'dict": 1}'}]
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    server.faults.append(Fault(raw=json.dumps(body)))
    assert ask(judge, question())[0].value == Verdict(verdict=1)
