"""Asking through the Batch API of a real server on loopback, killed and disturbed on the way."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer, Ending
from hypothesis import given
from hypothesis import strategies as st
from judge_server import Body, Fault
from pydantic import BaseModel, ConfigDict

from safesail.errors import JudgeError
from safesail.judging import Answer, BatchPace, Judge, Price, Prices, Question, render
from safesail.judging._batch import BatchEndpoint
from safesail.judging._batch_files import (
    BatchRequest,
    read_requests,
    read_results,
    write_requests,
)
from safesail.judging._batch_provider import BatchProvider
from safesail.judging._cache import AnswerCache, Entry
from safesail.judging._responses import Response
from safesail.lab.judge import MODEL, BatchBehaviour, KnownTruthJudge

KEY = "sk-a-key-that-must-never-be-stored"
QUICK = BatchPace(quiet=0.05, first_poll=0.02, longest_poll=0.1, settling=0.3)


class Verdict(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    verdict: int


def question(text: str) -> Question:
    return Question("count", "count/1", [{"role": "user", "content": text}], Verdict, 50)


def questions(count: int) -> list[Question]:
    return [question(f"How many in {number}?") for number in range(count)]


def count_letters(body: Body) -> str:
    """An answer that depends on the question, so that mixed up ones are noticed."""
    (number,) = re.findall(r"\d+", body["messages"][0]["content"])
    return json.dumps({"verdict": int(number) * 7})


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as running:
        running.answer = count_letters
        yield running


@pytest.fixture
def judge(server: BatchServer, tmp_path: Path) -> Judge:
    return make(server, tmp_path)


def make(
    server: BatchServer, folder: Path, *, batch: bool | BatchPace = QUICK, **options: Any
) -> Judge:
    return Judge(server.url, "test-judge", cache=folder / "judge.sqlite", batch=batch, **options)


def ask(judge: Judge, *asked: Question, **options: Any) -> list[Answer]:
    async def work() -> list[Answer]:
        async with judge:
            return await asyncio.gather(*(judge.ask(one, **options) for one in asked))

    return asyncio.run(work())


def verdicts(answers: list[Answer]) -> list[int]:
    return [answer.value.verdict for answer in answers if isinstance(answer.value, Verdict)]


def open_batches(folder: Path) -> int:
    with sqlite3.connect(folder / "judge.sqlite") as reader:
        return int(reader.execute("SELECT count(*) FROM batches").fetchone()[0])


def test_first_question_goes_alone_and_the_rest_in_one_batch(
    server: BatchServer, judge: Judge, tmp_path: Path
) -> None:
    answers = ask(judge, *questions(30))
    assert verdicts(answers) == [number * 7 for number in range(30)]
    assert {(answer.calls, answer.cached) for answer in answers} == {(1, False)}
    assert len(server.requests) == 30
    assert len(server.batches) == 1
    assert len(server.billed) == 29
    assert open_batches(tmp_path) == 0
    (file,) = [content for name, content in server.files.items() if name == "file-0"]
    lines = [json.loads(line) for line in file.splitlines()]
    assert {(line["method"], line["url"]) for line in lines} == {("POST", "/v1/chat/completions")}
    assert max(len(line["custom_id"]) for line in lines) <= 64


def test_answers_are_those_of_single_requests_and_each_finds_the_others(
    server: BatchServer, tmp_path: Path
) -> None:
    asked = questions(12)
    ways: dict[str, list[Answer]] = {}
    for name, batch, other in (("batch", QUICK, False), ("single", False, QUICK)):
        folder = tmp_path / name
        ways[name] = ask(make(server, folder, batch=batch), *asked)
        sent = len(server.requests)
        again = ask(make(server, folder, batch=other), *asked)
        assert len(server.requests) == sent
        assert {(answer.calls, answer.cached) for answer in again} == {(0, True)}
        assert verdicts(again) == verdicts(ways[name])
    assert ways["batch"] == ways["single"]


def test_replicates_of_one_question_stand_in_one_batch(server: BatchServer, judge: Judge) -> None:
    async def work() -> list[Answer]:
        async with judge:
            await judge.ask(question("first 0"))
            return await asyncio.gather(*(judge.ask(question("1"), replicate=n) for n in range(5)))

    assert verdicts(asyncio.run(work())) == [7] * 5
    assert len(server.batches) == 1
    assert len(set(server.billed)) == 5


def test_unreadable_answers_are_repaired_in_the_next_batch(
    server: BatchServer, judge: Judge
) -> None:
    server.faults += [Fault(), Fault(content="seven"), Fault(refusal="No.")]
    answers = ask(judge, *questions(5))
    assert Counter(answer.status for answer in answers) == {"answered": 4, "refused": 1}
    assert len(server.batches) == 2
    assert "could not be read" in server.requests[-1]["messages"][-1]["content"]


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429), Fault(cut=True)])
def test_lines_that_failed_are_asked_again_and_only_they(
    server: BatchServer, judge: Judge, fault: Fault
) -> None:
    server.faults += [Fault(), *[fault] * 3]
    answers = ask(judge, *questions(10))
    assert verdicts(answers) == [number * 7 for number in range(10)]
    assert sorted(answer.calls for answer in answers) == [1] * 7 + [2] * 3
    assert len(server.requests) == 13
    assert set(Counter(server.billed).values()) == {1}


def test_lines_that_fail_for_good_are_told_and_asked_again_by_the_next_run(
    server: BatchServer, judge: Judge, tmp_path: Path
) -> None:
    server.faults += [Fault(), *[Fault(status=503)] * 2 * QUICK.attempts]
    answers = ask(judge, *questions(3))
    assert [answer.status for answer in answers] == ["answered", "failed", "failed"]
    assert [answer.calls for answer in answers] == [1, QUICK.attempts, QUICK.attempts]
    assert all("503" in str(answer.error) for answer in answers[1:])
    assert not server.faults
    assert open_batches(tmp_path) == 0
    assert verdicts(ask(make(server, tmp_path), *questions(3))) == [0, 7, 14]


@pytest.mark.parametrize(
    "ending",
    [
        Ending("expired", lines=4),
        Ending("cancelled", lines=0),
        Ending("failed", errors=[{"code": "x", "message": "try again", "line": None}]),
    ],
    ids=["expired", "cancelled", "failed"],
)
def test_what_an_ended_batch_left_out_goes_into_the_next(
    server: BatchServer, judge: Judge, tmp_path: Path, ending: Ending
) -> None:
    server.endings.append(ending)
    answers = ask(judge, *questions(10))
    assert verdicts(answers) == [number * 7 for number in range(10)]
    assert len(server.batches) == 2
    assert len(server.billed) == 9
    assert set(Counter(server.billed).values()) == {1}
    assert open_batches(tmp_path) == 0


def test_line_that_the_validation_names_fails_alone(server: BatchServer, judge: Judge) -> None:
    error = {"code": "invalid_request", "message": "not like this", "line": 2, "param": None}
    server.endings.append(Ending("failed", errors=[error]))
    answers = ask(judge, *questions(5))
    assert Counter(answer.status for answer in answers) == {"answered": 4, "failed": 1}
    (failed,) = [answer for answer in answers if answer.status == "failed"]
    assert "not like this" in str(failed.error)


def test_too_many_waiting_tokens_make_smaller_batches_one_at_a_time(
    server: BatchServer, judge: Judge
) -> None:
    error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    server.endings += [Ending("failed", errors=[error])] * 2
    answers = ask(judge, *questions(13))
    assert verdicts(answers) == [number * 7 for number in range(13)]
    assert {answer.calls for answer in answers} == {1}
    sizes = [
        len(server.files[batch["input_file_id"]].splitlines()) for batch in server.batches.values()
    ]
    assert sizes[0] == 12
    assert max(sizes[2:]) <= 6
    assert set(Counter(server.billed).values()) == {1}


def test_batches_keep_the_limits_of_size(server: BatchServer, tmp_path: Path) -> None:
    by_number = BatchPace(quiet=0.05, first_poll=0.02, most_requests=4)
    ask(make(server, tmp_path / "number", batch=by_number), *questions(11))
    sizes = [len(content.splitlines()) for content in input_files(server)]
    assert sizes == [4, 4, 2]
    server.batches.clear()
    by_bytes = BatchPace(quiet=0.05, first_poll=0.02, most_bytes=2_000)
    answers = ask(make(server, tmp_path / "bytes", batch=by_bytes), *questions(11))
    assert verdicts(answers) == [number * 7 for number in range(11)]
    assert len(server.batches) > 1
    assert max(len(content) for content in input_files(server)) <= 2_000


def input_files(server: BatchServer) -> list[bytes]:
    return [server.files[batch["input_file_id"]] for batch in server.batches.values()]


def test_polls_grow_rare(server: BatchServer, judge: Judge) -> None:
    server.seconds = 0.6
    ask(judge, *questions(3))
    # At 0.02 s throughout there would be 30 of them, at 0.1 s throughout 7.
    assert 7 <= server.polls["batch_0"] <= 14


@pytest.mark.parametrize("listed_after", [0.0, 0.2])
def test_batch_whose_creation_was_cut_off_is_looked_for_before_another_is_made(
    server: BatchServer, judge: Judge, listed_after: float
) -> None:
    server.listed_after = listed_after
    server.endings.append(Ending(cut=True))
    answers = ask(judge, *questions(6))
    assert verdicts(answers) == [number * 7 for number in range(6)]
    assert len(server.batches) == 1


@pytest.mark.parametrize("status_code", [429, 503])
def test_refused_creation_is_tried_again(
    server: BatchServer, judge: Judge, status_code: int
) -> None:
    server.endings.append(Ending(status_code=status_code))
    assert verdicts(ask(judge, *questions(4))) == [0, 7, 14, 21]
    assert len(server.batches) == 1


def test_endpoint_without_batches_is_named(server: BatchServer, judge: Judge) -> None:
    server.offered = False
    with pytest.raises(JudgeError, match="has no Batch API") as raised:
        ask(judge, *questions(5))
    assert "\n" not in str(raised.value)
    assert "--batch" in str(raised.value)


def test_batch_that_cannot_be_created_is_found_by_the_next_run(
    server: BatchServer, judge: Judge, tmp_path: Path
) -> None:
    server.endings += [Ending(status_code=503)] * QUICK.attempts
    with pytest.raises(JudgeError, match="run the same command again later"):
        ask(judge, *questions(5))
    assert open_batches(tmp_path) == 1
    # The next run asks for less: what was submitted is answered and kept all the same.
    assert verdicts(ask(make(server, tmp_path), question("How many in 1?"))) == [7]
    assert open_batches(tmp_path) == 0
    sent = len(server.requests)
    assert verdicts(ask(make(server, tmp_path), *questions(5))) == [0, 7, 14, 21, 28]
    assert len(server.requests) == sent == 5


def test_batches_cost_their_share_of_the_price_also_in_the_next_run(
    server: BatchServer, tmp_path: Path
) -> None:
    prices = Prices({"test-judge": Price(input=100, output=100, batch=0.5)})
    server.endings += [Ending(status_code=503)] * QUICK.attempts
    with pytest.raises(JudgeError):
        ask(make(server, tmp_path, prices=prices), *questions(4))
    # The first went alone; the others are found in the batch of the first run, then in the cache.
    runs = [ask(make(server, tmp_path, prices=prices), *questions(4)) for _ in range(2)]
    assert len(server.requests) == 4
    for answers in runs:
        full = [(one.prompt_tokens + one.completion_tokens) / 1e4 for one in answers]
        costs = [one.cost_usd for one in answers]
        assert costs == pytest.approx([full[0], *(cost / 2 for cost in full[1:])])
        assert {one.calls for one in answers} == {0}


def test_batch_that_the_provider_has_forgotten_is_made_anew(
    server: BatchServer, judge: Judge, tmp_path: Path
) -> None:
    ask(judge, question("0"))
    with sqlite3.connect(tmp_path / "judge.sqlite") as writer:
        (row,) = writer.execute("SELECT * FROM answers").fetchall()
        url = row[1]
        writer.execute("DELETE FROM answers")
        request = BatchRequest(row[0], "count", "count/1", 0, row[6])
        writer.execute(
            "INSERT INTO batches VALUES ('batch_gone', ?, 'test-judge', ?, '2026-01-01T00:00:00Z')",
            (url, write_requests([request])),
        )
    assert verdicts(ask(make(server, tmp_path), question("0"))) == [0]
    assert open_batches(tmp_path) == 0


def test_key_is_in_no_file_of_the_run(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    server.answer = lambda body: json.dumps({"verdict": 1, "echo": KEY})
    answers = ask(make(server, tmp_path, key_variable="JUDGE_KEY"), *questions(4))
    assert verdicts(answers) == [1] * 4
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in stored
    assert not any(KEY.encode() in content for content in input_files(server))


class Grades(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    grades: str


def test_known_truth_judge_says_the_same_by_batch(tmp_path: Path) -> None:
    """A second server with the Batch API, whose batches expire and whose lines fail."""
    words = ("knife", "rope", "garden", "poison", "letter", "harbour")
    asked = []
    for number in range(30):
        items = [f"{number} he took the⟪ {word} from⟫" for word in words]
        prompt = render("items", explanation=f"words like {words[number % 6]}", items=items)
        asked.append(Question(prompt.task, prompt.version, prompt.messages, Grades, 100))
    behaviour = BatchBehaviour(delay=0.1, failures=0.2, expiring=1)
    patient = replace(QUICK, attempts=8)
    with KnownTruthJudge("medium", refusals=0.1, batches=behaviour) as lab:
        ways = []
        for name, batch in (("batch", patient), ("single", False)):
            cache = tmp_path / name / "judge.sqlite"
            ways.append(ask(Judge(lab.url, MODEL, cache=cache, batch=batch), *asked))
        assert [replace(answer, calls=1) for answer in ways[0]] == ways[1]
        assert {answer.status for answer in ways[1]} == {"answered", "refused"}
        assert max(answer.calls for answer in ways[0]) > 1
        assert len(lab.log.paid) == 30
        assert set(lab.log.paid.values()) == {2}


_RUN = """
import asyncio, sys
from pathlib import Path
from pydantic import BaseModel
from safesail.judging import BatchPace, Judge, Question

class Verdict(BaseModel):
    verdict: int

pace = BatchPace(quiet=0.05, first_poll=0.02, longest_poll=0.05, settling=0.5, most_requests=8)

async def run():
    async with Judge(sys.argv[1], "m", cache=Path(sys.argv[2]), batch=pace) as judge:
        questions = [Question("count", "count/1", [{"role": "user", "content": str(n)}], Verdict, 9)
                     for n in range(int(sys.argv[3]))]
        answers = await asyncio.gather(*(judge.ask(question) for question in questions))
    print([answer.value.verdict for answer in answers])

print("ready", flush=True)
asyncio.run(run())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 0), *(pytest.param(8, n, marks=pytest.mark.proof) for n in range(1, 4))]
)
def test_killed_at_any_moment_nothing_is_billed_twice_and_nothing_lost(
    tmp_path: Path, kills: int, seed: int
) -> None:
    count = 40
    moments = random.Random(seed)
    cache = tmp_path / "judge.sqlite"
    with BatchServer() as server:
        server.answer = count_letters
        server.seconds, server.listed_after = 0.2, 0.15
        command = [sys.executable, "-c", _RUN, server.url, str(cache), str(count)]
        for _ in range(kills):
            with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
                assert run.stdout is not None
                run.stdout.readline()
                # The client library takes half a second to load.
                time.sleep(0.5 + moments.uniform(0, 0.8))
                run.send_signal(signal.SIGKILL)
        last = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(last.stdout.splitlines()[1]) == [number * 7 for number in range(count)]
        assert set(Counter(server.billed).values()) == {1}
        # Single requests: the first contact, at most one of each run.
        assert count - 1 - kills <= len(server.billed) <= count
        with sqlite3.connect(cache) as reader:
            keys = {key for (key,) in reader.execute("SELECT key FROM answers")}
            assert len(keys) == count
            assert set(server.billed) <= keys
            assert reader.execute("SELECT count(*) FROM batches").fetchone() == (0,)


def test_answer_that_has_come_since_the_asker_looked_is_not_asked_for(tmp_path: Path) -> None:
    async def work() -> Response:
        provider = BatchProvider("http://127.0.0.1:9/v1", KEY, timeout=1, max_retries=0)
        endpoint = BatchEndpoint(
            provider, cache, url="u", model="m", keep=lambda _, response: response, pace=QUICK
        )
        try:
            return await endpoint.send(BatchRequest("k", "count", "count/1", 0, "{}"))
        finally:
            await endpoint.close()

    cache = AnswerCache(tmp_path / "judge.sqlite")
    cache.put(Entry("k", "u", "m", "count", "count/1", 0, "{}", 200, '{"x": 1}', 1, 1, 0, 0.5, 1.0))
    found = asyncio.run(work())
    cache.close()
    assert (found.text, found.calls, found.cost_usd) == ('{"x": 1}', 0, 0.5)


@given(st.lists(st.builds(BatchRequest, *[st.text()] * 3, st.integers(), st.just('{"a": 1}'))))
def test_stored_requests_come_back_as_they_were(requests: list[BatchRequest]) -> None:
    assert read_requests(write_requests(requests)) == requests


@given(st.text(), st.integers(200, 599))
def test_results_are_read_whatever_their_text_holds(content: str, status: int) -> None:
    entry = {"custom_id": "a", "response": {"status_code": status, "body": {"x": content}}}
    text = json.dumps(entry, ensure_ascii=False) + "\nno JSON\n{}\n[]\n"
    result = read_results(text)["a"]
    assert (result.status_code, json.loads(result.text)) == (status, {"x": content})
    assert result.passing == (status >= 500 or status in (408, 409, 429))
