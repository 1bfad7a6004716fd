"""The known-truth judge over HTTP: the same answers, its faults, and its log."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from safesail.errors import ConfigurationError
from safesail.judging import render
from safesail.lab.judge import MODEL, Faults, KnownTruthJudge, Quality
from safesail.lab.judge._noise import CONTENT, TRANSPORT, canonical, digest

Body = dict[str, Any]


def body(number: int = 0, task: str = "items", entries: Any = None, **more: Any) -> Body:
    """A question about forgery; another number makes another body."""
    entries = entries or [f"The clerk⟪ forged the visa⟫ {number}", "The⟪ cook sang⟫"]
    values = {"items" if task == "items" else "windows": entries}
    prompt = render(task, explanation="fraud/forgery", **values)
    return {"model": MODEL, "messages": prompt.messages, **more}


CLIENT = httpx.Client(timeout=30)


def ask(judge: KnownTruthJudge, question: Body) -> httpx.Response:
    return CLIENT.post(f"{judge.url}/chat/completions", json=question)


def content(response: httpx.Response) -> str:
    assert response.status_code == 200
    found: str = response.json()["choices"][0]["message"]["content"]
    return found


@pytest.fixture(scope="module")
def perfect() -> Iterator[KnownTruthJudge]:
    with KnownTruthJudge("perfect") as judge:
        yield judge


@pytest.mark.parametrize(
    ("task", "entries", "grades"),
    [
        ("items", ["The clerk⟪ forged the visa⟫", "The⟪ cook sang⟫"], "1:3 2:0"),
        ("segments", [["A clerk", " forged the visa", ", he said"], ["It rained"]], "1:033 2:0"),
        ("detection", ["A clerk forged the visa.", "A clerk forged the iron sword."], "1:1 2:0"),
        ("fuzzing", ["A clerk forged the⟪ visa⟫.", "A⟪ clerk⟫ forged the visa."], "1:1 2:0"),
    ],
)
def test_graded_tasks(perfect: KnownTruthJudge, task: str, entries: Any, grades: str) -> None:
    assert json.loads(content(ask(perfect, body(task=task, entries=entries)))) == {"grades": grades}


def test_tokens_are_simulated(perfect: KnownTruthJudge) -> None:
    tokens = [" A", " clerk", " forged", " the", " vi", "sa", "."]
    windows = [{"window": 1, "count": len(tokens), "tokens": tokens}]
    answer = json.loads(content(ask(perfect, body(task="simulate", entries=windows))))
    ((levels,),) = ([one["activations"] for one in answer["windows"]],)
    assert levels[:2] == [0, 0]
    assert 4 <= levels[2] == levels[4] < 9
    assert levels[5:] == [9, 9]


def test_tokens_are_characters_over_four(perfect: KnownTruthJudge) -> None:
    question = body()
    response = ask(perfect, question)
    said = sum(len(message["content"]) for message in question["messages"])
    assert response.json()["usage"]["prompt_tokens"] == math.ceil(said / 4)
    answered = math.ceil(len(content(response)) / 4)
    assert response.json()["usage"]["completion_tokens"] == answered
    assert httpx.get(f"{perfect.url}/models").json()["data"][0]["id"] == MODEL


def test_a_repair_is_the_question_answered_again(perfect: KnownTruthJudge) -> None:
    question = body()
    first = content(ask(perfect, question))
    repair = render("repair", error="no JSON")
    wrong = {"role": "assistant", "content": "well"}
    messages = [*question["messages"], wrong, *repair.messages]
    assert content(ask(perfect, question | {"messages": messages})) == first


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "hi"}], None, "x"])
def test_other_questions_are_refused_by_status(perfect: KnownTruthJudge, messages: Any) -> None:
    before = perfect.log.unknown
    assert ask(perfect, {"model": MODEL, "messages": messages}).status_code == 400
    assert perfect.log.unknown == before + 1


def test_the_same_body_gets_the_same_answer_and_another_seed_another() -> None:
    many = [body(entries=["The clerk⟪ forged the visa⟫"] * 40), body(1)]
    poor = Quality(0.4, 0.1, 1.0)
    with KnownTruthJudge(poor) as judge, KnownTruthJudge(poor) as other:
        first = [content(ask(judge, one)) for one in many]
        assert [content(ask(other, one)) for one in reversed(many)] == first[::-1]
        assert [content(ask(judge, one)) for one in many] == first
    with KnownTruthJudge(poor, seed=1) as judge:
        assert content(ask(judge, many[0])) != first[0]


def test_refusals_come_in_words_and_by_field() -> None:
    with KnownTruthJudge(refusals=0.3) as judge:
        replies = [ask(judge, body(n)).json()["choices"][0]["message"] for n in range(120)]
    words = sum((one["content"] or "").startswith("I'm sorry") for one in replies)
    by_field = sum(bool(one["refusal"]) and one["content"] is None for one in replies)
    assert words + by_field == judge.log.refused == pytest.approx(36, abs=18)
    assert min(words, by_field) > 5
    assert judge.log.answered == 120 - judge.log.refused
    assert sum(judge.log.paid.values()) == 120


@pytest.mark.parametrize(
    ("kind", "status"),
    [("rate_limited", 429), ("rate_limited_bare", 429), ("server_error", 500),
     ("unavailable", 503), ("content_filter", 400)],
)  # fmt: skip
def test_faults_by_status(kind: str, status: int) -> None:
    with KnownTruthJudge(faults=Faults(**{kind: 1.0}, retry_after=2)) as judge:
        response = ask(judge, body())
    assert response.status_code == status
    assert response.headers.get("retry-after") == ("2" if kind == "rate_limited" else None)
    assert judge.log.faulted == {kind: 1}
    assert judge.log.by_task == {"items": {kind: 1}}
    assert not judge.log.paid
    if kind == "content_filter":
        assert response.json()["error"]["code"] == "content_filter"


@pytest.mark.parametrize("kind", ["cut", "hang"])
def test_faults_of_the_connection(kind: str) -> None:
    with KnownTruthJudge(faults=Faults(**{kind: 1.0}, hang_seconds=0.3)) as judge:
        with pytest.raises(httpx.TransportError):
            ask(judge, body())
        if kind == "hang":
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{judge.url}/chat/completions", json=body(), timeout=0.1)
    assert set(judge.log.faulted) == {kind}
    assert not judge.log.paid


def test_faults_of_the_answer() -> None:
    good = '{"grades": "1:3 2:0"}'
    found = {}
    for kind in ("no_choices", "truncated", "prose", "wrong_length"):
        with KnownTruthJudge("perfect", faults=Faults(**{kind: 1.0})) as judge:
            found[kind] = ask(judge, body(entries=["⟪the clerk forged the visa⟫", "⟪a⟫"])).json()
        assert judge.log.faulted == {kind: 1}
        assert sum(judge.log.paid.values()) == (kind != "no_choices")
    assert found.pop("no_choices")["choices"] == []
    said = {kind: one["choices"][0]["message"]["content"] for kind, one in found.items()}
    assert good.startswith(said["truncated"])
    assert said["truncated"] != good
    assert good in said["prose"]
    assert said["prose"] != good
    assert json.loads(said["wrong_length"]) == {"grades": "1:3"}


def test_mixed_faults_come_as_often_as_set_and_pass() -> None:
    faults = Faults.mixed(0.44, hang_seconds=0.0)
    kinds = TRANSPORT + CONTENT
    assert sum(getattr(faults, kind) for kind in kinds) == pytest.approx(0.44)
    drawn = [faults.transport(0, str(n), 1) or faults.content(0, str(n)) for n in range(20_000)]
    transport = sum(getattr(faults, kind) for kind in TRANSPORT)
    for kind in kinds:
        expected = 0.04 if kind in TRANSPORT else 0.04 * (1 - transport)
        assert drawn.count(kind) / 20_000 == pytest.approx(expected, abs=0.006)
    # What is wrong on the way is drawn anew for every attempt.
    again = {faults.transport(0, "body", attempt) for attempt in range(100)}
    assert None in again
    assert len(again) > 4


def test_the_log_says_what_was_paid_and_by_which_body() -> None:
    with KnownTruthJudge() as judge:
        for number in (1, 2, 2):
            ask(judge, body(number))
        log = httpx.get(f"{judge.url.removesuffix('/v1')}/lab/log").json()
    assert log["asked"] == log["answered"] == 3
    assert log["by_task"] == {"items": {"answered": 3}}
    assert log["paid"] == {digest(canonical(body(1))): 1, digest(canonical(body(2))): 2}
    said = sum(len(message["content"]) for message in body(1)["messages"])
    assert log["prompt_tokens"] == 3 * math.ceil(said / 4)


def test_in_a_process_of_its_own() -> None:
    with KnownTruthJudge.in_a_process("--quality", "perfect", "--refusals", "1") as judge:
        response = httpx.post(f"{judge.url}/chat/completions", json=body(), timeout=30)
        assert response.status_code == 200
        assert judge.log()["refused"] == 1


def test_unknown_qualities_and_missing_libraries_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'superb': choose of perfect, good"):
        KnownTruthJudge("superb")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        KnownTruthJudge()
