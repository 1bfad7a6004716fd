"""Many questions, mixed faults and kills: nothing is lost, paid for twice or left uncounted."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soak_server

CONCURRENCY = 32
FAULTS = 0.15
PAID = {"answer", *soak_server.REFUSALS, *soak_server.MISTAKES}

_RUN = """
import asyncio, json, sys
from pathlib import Path
from pydantic import BaseModel
from safesail.judging import Judge, Question

class Verdict(BaseModel):
    verdict: int

url, cache, count, concurrency = sys.argv[1:]

def question(number):
    message = {"role": "user", "content": f"Rate number {number}."}
    return Question("count", "count/1", [message], Verdict, 50)

async def run():
    async with Judge(
        url, "m", cache=Path(cache), concurrency=int(concurrency), timeout=5, max_retries=6
    ) as judge:
        answers = [None] * int(count)
        numbers = iter(range(int(count)))
        async def work():
            for number in numbers:
                answers[number] = await judge.ask(question(number))
        await asyncio.gather(*(work() for _ in range(int(concurrency))))
    print(json.dumps([[one.status, one.value and one.value.verdict, one.calls] for one in answers]))

asyncio.run(run())
"""


@contextmanager
def serving(log: Path) -> Iterator[str]:
    command = [sys.executable, soak_server.__file__, str(log), str(FAULTS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


def read_log(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def when_quiet(log: Path) -> list[dict]:
    """The log when the server has dealt with what a killed run had sent."""
    size = -1
    while size != (size := log.stat().st_size):
        time.sleep(0.3)
    return read_log(log)


def paid_for(entries: list[dict]) -> Counter[tuple[int, bool]]:
    return Counter((one["number"], one["repairs"]) for one in entries if one["sent"] in PAID)


def stored(cache: Path) -> set[tuple[int, bool]]:
    with sqlite3.connect(cache) as reader:
        bodies = [json.loads(text) for (text,) in reader.execute("SELECT request FROM answers")]
    return {(soak_server.number_of(body), len(body["messages"]) > 1) for body in bodies}


def expected_status(sent: list[tuple[bool, str]]) -> str:
    """What came of a question, by what the server sent: the log's own verdict."""
    first = {name for repairs, name in sent if not repairs} & PAID
    again = {name for repairs, name in sent if repairs} & PAID
    if not first:
        return "failed"
    (said,) = first  # the same however often it was asked
    if said in soak_server.MISTAKES:
        if not again:
            return "failed"
        (said,) = again
    if said in soak_server.REFUSALS:
        return "refused"
    return "answered" if said == "answer" else "unparseable"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("count", "kills"),
    [(500, 1), pytest.param(10_000, 5, marks=[pytest.mark.proof, pytest.mark.timeout(900)])],
)
def test_soak(tmp_path: Path, count: int, kills: int) -> None:
    cache, log = tmp_path / "judge.sqlite", tmp_path / "server.log"
    asked_before, lost = 0, set()
    with serving(log) as url:
        command = [sys.executable, "-c", _RUN, url, str(cache), str(count), str(CONCURRENCY)]
        for kill in range(1, kills + 1):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
                while log.read_bytes().count(b"\n") < kill * count // (kills + 1):
                    assert run.poll() is None
                    time.sleep(0.1)
                run.send_signal(signal.SIGKILL)
            # Only what was under way may have been paid for and not kept.
            entries = when_quiet(log)
            lost_now = paid_for(entries[asked_before:]).keys() - stored(cache)
            assert len(lost_now) <= CONCURRENCY
            lost |= lost_now
            asked_before = len(entries)
        kept_before = stored(cache)
        last = subprocess.run(command, capture_output=True, text=True, check=True)
        entries = when_quiet(log)
    answers = json.loads(last.stdout)
    counts = Counter(status for status, _, _ in answers)
    assert counts.keys() <= {"answered", "refused", "unparseable", "failed"}
    assert counts.total() == count
    assert all(v == number for number, (status, v, _) in enumerate(answers) if status == "answered")
    # The server's own log agrees, question by question, and request by request in the last run. Of
    # earlier runs what was kept counts: a question whose answer a kill took was asked again, and
    # that may have failed.
    sent: dict[int, list[tuple[bool, str]]] = {number: [] for number in range(count)}
    for place, one in enumerate(entries):
        if place >= asked_before or (one["number"], one["repairs"]) in kept_before:
            sent[one["number"]].append((one["repairs"], one["sent"]))
    assert [status for status, _, _ in answers] == [expected_status(one) for one in sent.values()]
    assert sum(calls for _, _, calls in answers) == len(entries) - asked_before
    # All that was paid for is kept, but for what kills took and no later run was given again; and
    # at most what was under way was paid for twice.
    paid, kept = paid_for(entries), stored(cache)
    assert kept <= paid.keys()
    assert paid.keys() - kept <= lost
    assert paid_for(entries[asked_before:]).keys() <= kept
    assert paid.total() - len(paid) <= kills * CONCURRENCY
    wrong = sum(one["sent"] != "answer" for one in entries) / len(entries)
    assert wrong == pytest.approx(FAULTS, abs=0.05)
    assert counts["answered"] > 0.9 * count
    assert min(counts["refused"], counts["unparseable"]) > 0
