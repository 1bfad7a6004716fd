"""Bad days of an endpoint: what is asked again, when, how often, and what is said of it."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from judge_questions import Verdict, ask, question
from judge_server import Fault, JudgeServer
from tenacity import Future, RetryCallState

from safesail.errors import JudgeError
from safesail.judging import Judge, list_models
from safesail.judging._endpoint import _asked_pause, _Attempt, _wait

KEY = "sk-a-key-that-must-never-be-shown"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("safesail.judging._endpoint._backoff", lambda state: 0.01)
    with JudgeServer() as running:
        running.answer = lambda body: '{"verdict": 3}'
        yield running


@pytest.fixture
def judge(server: JudgeServer, tmp_path: Path) -> Judge:
    return Judge(server.url, "test-judge", cache=tmp_path / "judge.sqlite", max_retries=2)


PASSING = [
    *(Fault(status=status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    Fault(cut=True),
    Fault(status=429, headers={"Retry-After": "0.02"}),
    Fault(status=503, headers={"Retry-After": "0.02"}),
    Fault(status=429, headers={"Retry-After": "soon"}),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: str(fault.status))
def test_what_may_pass_is_asked_again(server: JudgeServer, judge: Judge, fault: Fault) -> None:
    server.faults += [fault] * 2
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls, len(server.requests)) == ("answered", 3, 3)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: str(fault.status))
def test_what_does_not_pass_has_failed_after_all_retries(
    server: JudgeServer, judge: Judge, fault: Fault
) -> None:
    server.faults += [fault] * 3
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls, len(server.requests)) == ("failed", 3, 3)
    assert answer.error
    assert "\n" not in answer.error
    assert answer.prompt_tokens == answer.completion_tokens == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=400),
        Fault(status=413),
        Fault(status=422),
        Fault(raw='{"id": "1", "choices": []}'),
        Fault(raw='{"id": "1", "choices": [{"message": {"content": "{\\"verd'),
        Fault(raw=""),
        Fault(raw="[1, 2]"),
        Fault(raw="[" * 100_000),
        Fault(raw='{"choices": [{"message": null}]}'),
    ],
)
def test_what_would_fail_again_is_asked_once_and_never_stored(
    server: JudgeServer, judge: Judge, fault: Fault
) -> None:
    ask(judge, question("first"))  # the way to ask is known now
    server.faults.append(fault)
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("failed", 1)
    assert answer.error is not None
    assert len(answer.error) < 250
    assert ask(judge, question())[0].status == "answered"


def test_tokens_of_a_response_without_choices_are_counted(
    server: JudgeServer, judge: Judge
) -> None:
    server.faults.append(
        Fault(raw='{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}')
    )
    (answer,) = ask(judge, question())
    assert (answer.status, answer.prompt_tokens, answer.completion_tokens) == ("failed", 5, 2)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 500,
                "total_tokens": 510,
                "completion_tokens_details": {"reasoning_tokens": 480},
            },
            (10, 500, 480),
        ),
        # Hidden tokens that only the total holds.
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 510}, (10, 500, 480)),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 3}, (10, 20, 0)),
        ({"prompt_tokens": "ten", "completion_tokens": -1}, (0, 0, 0)),
        ({}, (0, 0, 0)),
    ],
)
def test_hidden_tokens_are_counted(
    server: JudgeServer, judge: Judge, usage: dict, expected: tuple[int, int, int]
) -> None:
    server.faults.append(Fault(usage=usage))
    for answer in (*ask(judge, question()), *ask(judge, question())):
        assert answer.status == "answered"
        counted = (answer.prompt_tokens, answer.completion_tokens, answer.reasoning_tokens)
        assert counted == expected


@pytest.mark.parametrize("header", ["retry-after-ms", "Retry-After", "date"])
def test_the_wait_that_is_asked_for_is_kept(server: JudgeServer, judge: Judge, header: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    name, value = {
        "retry-after-ms": ("retry-after-ms", "400"),
        "Retry-After": ("Retry-After", "0.4"),
        "date": ("Retry-After", date),
    }[header]
    server.faults.append(Fault(status=429, headers={name: value}))
    assert ask(judge, question())[0].status == "answered"
    first, second = server.arrivals
    assert 0.4 <= second - first < 3.0


def test_a_rate_limit_of_one_request_holds_back_the_others(
    server: JudgeServer, judge: Judge
) -> None:
    ask(judge, question("first"))
    server.arrivals.clear()
    server.delay = 0.05
    server.faults.append(Fault(status=429, headers={"Retry-After": "0.5"}))
    ask(judge, *(question(str(number)) for number in range(20)))
    at = [arrival - server.arrivals[0] for arrival in server.arrivals]
    # Eight were on their way, all others waited.
    assert sum(moment < 0.5 for moment in at) <= 8
    assert len(at) == 21


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999"}, 600.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2999 07:28:00 GMT"}, 600.0),
    ],
)
def test_asked_waits(headers: dict[str, str], expected: float | None) -> None:
    assert _asked_pause(headers) == expected


def test_waits_grow_with_jitter_and_stay_within_bounds() -> None:
    def waits(attempt: int) -> list[float]:
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = attempt
        state.outcome = Future.construct(attempt, _Attempt(500, ""), has_exception=False)
        return [_wait(state) for _ in range(50)]

    assert all(0.5 <= wait <= 1.0 for wait in waits(1))
    assert len(set(waits(1))) > 1
    assert all(2.0 <= wait <= 2.5 for wait in waits(3))
    assert all(wait <= 30.5 for wait in waits(40))


def test_a_trickle_ends_with_the_time_out(server: JudgeServer, tmp_path: Path) -> None:
    server.faults += [Fault(hang=30)] * 2
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", timeout=0.2, max_retries=1)
    started = time.monotonic()
    (answer,) = ask(judge, question())
    assert (answer.status, answer.error, answer.calls) == ("failed", "no answer within 0.2 s", 2)
    assert time.monotonic() - started < 5


def test_what_hangs_is_asked_once_more_however_many_retries(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.faults += [Fault(status=503), Fault(hang=30), Fault(status=503), Fault(hang=30)]
    judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite", timeout=0.3, max_retries=9)
    (answer,) = ask(judge, question())
    assert (answer.status, answer.error, answer.calls) == ("failed", "no answer within 0.3 s", 4)


@pytest.mark.parametrize("code", [429, 502, "503", "overloaded", None])
def test_an_error_that_comes_as_a_success_is_one(
    server: JudgeServer, judge: Judge, code: int | str | None
) -> None:
    error = json.dumps({"error": {"message": "provider is down", "code": code}})
    server.faults += [Fault(raw=error)] * 2
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("answered", 3)
    server.faults += [Fault(raw=error)] * 3
    (answer,) = ask(judge, question("another"))
    assert (answer.status, answer.calls) == ("failed", 3)
    status = {"503": 503}.get(str(code), code if isinstance(code, int) else 500)
    assert answer.error == f"HTTP {status}: provider is down"


@pytest.mark.parametrize(
    "broken",
    [
        {"finish_reason": "error", "message": {"content": ""}},
        {"finish_reason": "error", "message": {"content": '{"verdict": '}},
        {"error": {"code": 502, "message": "gone"}, "message": {"content": ""}},
    ],
)
def test_an_answer_that_a_provider_did_not_finish_is_asked_for_again(
    server: JudgeServer, judge: Judge, broken: dict[str, Any]
) -> None:
    server.faults += [Fault(raw=json.dumps({"choices": [broken]}))] * 3
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("failed", 3)
    # It was not stored as if the judge had said it.
    assert ask(judge, question())[0].status == "answered"


def test_an_account_without_credit_ends_the_run_whatever_the_status(
    server: JudgeServer, judge: Judge
) -> None:
    empty = {"error": {"code": "insufficient_quota", "message": "pay"}}
    server.faults.append(Fault(raw=json.dumps(empty)))
    with pytest.raises(JudgeError, match="no credit left"):
        ask(judge, question())


@pytest.mark.parametrize(
    "flagged",
    [
        {"message": "flagged", "code": 403, "metadata": {"reasons": ["violence"]}},
        {"message": "flagged", "code": "content_filter"},
    ],
)
def test_a_rejection_that_comes_as_a_success_is_not_asked_again(
    server: JudgeServer, judge: Judge, flagged: dict[str, Any]
) -> None:
    server.faults.append(Fault(raw=json.dumps({"error": flagged})))
    (answer,) = ask(judge, question())
    assert (answer.status, answer.calls) == ("refused", 1)


def test_an_endpoint_that_never_answers_ends_the_run_after_three_questions(
    server: JudgeServer, judge: Judge
) -> None:
    server.faults += [Fault(status=500)] * 1000
    with pytest.raises(JudgeError, match=r"none of the last 3 questions .*HTTP 500"):
        ask(judge, *(question(str(number)) for number in range(50)))
    assert len(server.requests) == 9


def test_an_endpoint_that_falls_silent_ends_the_run(server: JudgeServer, tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    judge = Judge(server.url, "m", cache=cache, concurrency=2, max_retries=0)
    # A bad spell, and a question that it wants nothing of, are no silence.
    bad = [Fault(status=500)] * 19
    server.faults += [Fault(), *bad, Fault(status=413), *bad, Fault()]
    answers = ask(judge, *(question(str(number)) for number in range(41)))
    assert [answer.status for answer in answers].count("failed") == 39
    server.faults += [Fault(), *bad, *bad]
    with pytest.raises(JudgeError, match="none of the last 20 questions"):
        ask(judge, *(question(f"later {number}") for number in range(40)))
    server.faults.clear()
    assert sum(one.cached for one in ask(judge, *(question(str(n)) for n in range(41)))) == 2


def test_effort_is_asked_for_only_where_set_and_taken(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    ask(Judge(server.url, "m", cache=path), question())
    assert "reasoning_effort" not in server.requests[-1]
    thinking = Judge(server.url, "thinker", cache=path, reasoning_effort="low")
    ask(thinking, question())
    assert server.requests[-1]["reasoning_effort"] == "low"
    server.unsupported = {"reasoning_effort"}
    plain = Judge(server.url, "plain", cache=path, reasoning_effort="low")
    answers = ask(plain, *(question(str(number)) for number in range(3)))
    assert {answer.status for answer in answers} == {"answered"}
    assert sum(answer.calls for answer in answers) == 4
    assert "reasoning_effort" not in server.requests[-1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_in_no_message_and_no_trace(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.faults += [Fault(status=status, error={"message": f"not with {KEY}"})] * 3
    judge = Judge(
        server.url, "m", cache=tmp_path / "j.sqlite", key_variable="JUDGE_KEY", max_retries=0
    )
    try:
        said = str(ask(judge, question()))
    except JudgeError as error:
        said = "".join(traceback.format_exception(error))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "[key]" in said
    assert KEY not in said
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in stored


@pytest.mark.parametrize("key", ["sk-with a blank", "sk-with\na-line-break"])
def test_a_key_that_a_client_would_show_is_refused(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(JudgeError, match="JUDGE_KEY") as raised:
        Judge(server.url, "m", cache=tmp_path / "j.sqlite", key_variable="JUDGE_KEY")
    assert key not in str(raised.value)
    with pytest.raises(JudgeError, match="JUDGE_KEY"):
        list_models(server.url, "JUDGE_KEY")


def test_answers_are_read_whatever_letters_they_hold(server: JudgeServer, judge: Judge) -> None:
    server.answer = lambda body: '{"verdict": 3, "why": "\\u0000 \\u202eevil\\u202c 好"}'
    (answer,) = ask(judge, question("\x00 ‮txt‬ \ud800 好"))
    assert answer.value == Verdict(verdict=3)
    assert server.requests[0]["messages"][0]["content"] == "\x00 ‮txt‬ ? 好"
    (again,) = ask(judge, question("\x00 ‮txt‬ \ud800 好"))
    assert (again.value, again.cached) == (Verdict(verdict=3), True)
