"""The file of answers: older, newer, damaged and locked ones, and several users at once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from judge_questions import Verdict, ask, question
from judge_server import JudgeServer

from safesail.errors import StorageError
from safesail.judging import Judge
from safesail.judging._cache import AnswerCache, Entry
from safesail.judging._cache_file import connect
from safesail.judging._history import History

# The tables as the first version made them.
_FIRST_VERSION = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    version TEXT NOT NULL,
    replicate INTEGER NOT NULL,
    request TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    response TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS dialects (
    position INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    model TEXT NOT NULL,
    dialect TEXT NOT NULL
);
PRAGMA user_version = 1;
"""
# What it stored for one question to http://127.0.0.1:9/v1.
_URL = "http://127.0.0.1:9/v1"
_KEY = "17d696fc6ceac5f2f8374be69e2458288de15deb96e77980a936a6302131900b"
_BODY = {
    "max_tokens": 50,
    "messages": [{"content": "How many?", "role": "user"}],
    "model": "test-judge",
    "response_format": {"type": "json_object"},
    "temperature": 0,
}
_RESPONSE = {
    "choices": [{"message": {"content": '{"verdict": 3}'}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5},
}
ENTRY = Entry(
    *("k", _URL, "m", "count", "count/1", 0, "{}"),
    *(200, json.dumps(_RESPONSE), 1, 1, 0, None, 0.1),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        running.answer = lambda body: '{"verdict": 3}'
        yield running


def first_version_file(path: Path) -> None:
    body = json.dumps(_BODY, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    dialect = {"response_format": "json_object", "limit": "max_tokens", "temperature": True}
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode = WAL")
        old.executescript(_FIRST_VERSION)
        old.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, 0, ?, 200, ?, 7, 5, 0.5, ?)",
            (
                _KEY,
                *(_URL, "test-judge", "count", "count/1", body),
                *(json.dumps(_RESPONSE), "2026-01-01T00:00:00+00:00"),
            ),
        )
        old.execute(
            "INSERT INTO dialects (url, model, dialect) VALUES (?, ?, ?)",
            (_URL, "test-judge", json.dumps(dialect)),
        )


def test_answers_of_the_first_version_are_found(tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    first_version_file(path)
    # Nobody listens there: whatever were sent would fail.
    (answer,) = ask(Judge(_URL, "test-judge", cache=path), question())
    assert (answer.value, answer.cached) == (Verdict(verdict=3), True)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.reasoning_tokens) == (7, 5, 0)
    assert answer.cost_usd is None
    with sqlite3.connect(path) as reader:
        assert reader.execute("PRAGMA user_version").fetchone() == (2,)


def test_migrating_twice_at_once_is_migrating_once(tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    first_version_file(path)
    code = "import sys, pathlib; from safesail.judging._cache import AnswerCache; "
    code += "AnswerCache(pathlib.Path(sys.argv[1])).close()"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    assert [run.wait(60) for run in runs] == [0] * 4
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM answers").fetchone() == (1,)


def test_a_new_file_commits_to_the_disk_and_lets_others_read(tmp_path: Path) -> None:
    connection = connect(tmp_path / "judge.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    connection.close()


def test_cache_of_a_later_version_is_left_alone(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    with pytest.raises(StorageError, match="version 99") as raised:
        ask(Judge(server.url, "m", cache=path), question())
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


def test_what_is_no_database_is_moved_aside_and_the_run_goes_on(
    server: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "judge.sqlite"
    content = b"no database, but long enough to be read as one" * 40
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"judge\.sqlite were damaged"):
        (answer,) = ask(Judge(server.url, "m", cache=path), question())
    assert answer.value == Verdict(verdict=3)
    (aside,) = tmp_path.glob("judge.sqlite.damaged-*Z")
    assert aside.read_bytes() == content
    assert ask(Judge(server.url, "m", cache=path), question())[0].cached


def fill(path: Path, count: int) -> None:
    cache = AnswerCache(path)
    with cache.transaction():
        cache.add_dialect(_URL, "m", "{}")
        for number in range(count):
            cache.put(replace(ENTRY, key=f"{number:064}", request="x" * 3000))
    cache.close()


def break_pages(path: Path) -> None:
    """Overwrite a tenth of the file from its middle on."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 10))


def test_answers_that_can_be_read_are_taken_out_of_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("judge.sqlite")
    fill(path, 400)
    break_pages(path)
    cache = AnswerCache(path)
    with pytest.warns(UserWarning, match="answers that could be read"):
        found = [cache.get(f"{number:064}") for number in range(400)]
    # Up to the damage and, from the end, back to it.
    assert 250 < sum(response is not None for response in found) < 400
    assert cache.dialects(_URL, "m") == ["{}"]
    cache.close()
    (aside,) = tmp_path.glob("judge.sqlite.damaged-*Z")
    assert aside.stat().st_size > 100_000


def test_a_stored_answer_that_is_none_is_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    """Damage that only the text of an answer shows."""
    path = tmp_path / "judge.sqlite"
    judge = Judge(server.url, "m", cache=path)
    ask(judge, question())
    with sqlite3.connect(path) as writer:
        writer.execute("UPDATE answers SET response = substr(response, 1, 40)")
    assert not ask(judge, question())[0].cached
    assert ask(judge, question())[0].cached


def test_a_file_that_breaks_in_the_middle_of_a_run(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    fill(path, 400)

    async def work() -> list[str]:
        async with Judge(server.url, "m", cache=path) as judge:
            first = await judge.ask(question("first"))
            with sqlite3.connect(path) as writer:
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * (size - 4096))
            later = [await judge.ask(question(str(number))) for number in range(20)]
            return [answer.status for answer in (first, *later)]

    with pytest.warns(UserWarning, match="were damaged"):
        assert asyncio.run(work()) == ["answered"] * 21
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM answers").fetchone()[0] >= 20


def test_who_only_looks_is_told_what_becomes_of_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    path.write_bytes(b"no database, but long enough to be read as one" * 40)
    for look in (History(path).totals, lambda: History(path).forget(["a"])):
        with pytest.raises(StorageError, match="moves the file aside and keeps") as raised:
            look()
        assert "free space" not in str(raised.value)


def test_a_locked_file_is_waited_for_and_then_named(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safesail.judging._cache_file.LOCKED_SECONDS", 0.3)
    path = tmp_path / "judge.sqlite"
    connect(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    judge = Judge(server.url, "m", cache=path)
    with pytest.raises(StorageError, match="locked by another process") as raised:
        ask(judge, question())
    assert "\n" not in str(raised.value)
    monkeypatch.setattr("safesail.judging._cache_file.LOCKED_SECONDS", 30.0)

    async def work() -> str:
        async with judge:
            asking = asyncio.create_task(judge.ask(question("other")))
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert not asking.done()
            holder.execute("COMMIT")
            return (await asking).status

    # The dialect of the endpoint is known by now, so that only the writing thread waits.
    with sqlite3.connect(path) as writer:
        holder.execute("COMMIT")
        writer.execute(
            "INSERT INTO dialects (url, model, dialect) VALUES (?, 'm', '{}')", (server.url,)
        )
    holder.execute("BEGIN IMMEDIATE")
    assert asyncio.run(work()) == "answered"
    holder.close()


_RUN = """
import asyncio, sys
from pathlib import Path
from safesail.judging import Judge
sys.path.insert(0, sys.argv[4])
from judge_questions import ask, question

judge = Judge(sys.argv[1], "m", cache=Path(sys.argv[2]))
answers = ask(judge, *(question(f"{sys.argv[3]} {n}") for n in range(40)))
print({answer.status for answer in answers})
"""


def test_two_processes_share_a_file(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "judge.sqlite"
    tests = str(Path(__file__).parents[1])
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _RUN, server.url, str(path), name, tests],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    assert [run.communicate(timeout=120)[0] for run in runs] == ["{'answered'}\n"] * 2
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT count(*) FROM answers").fetchone() == (80,)


def test_answers_that_arrive_together_share_commits(tmp_path: Path) -> None:
    async def work() -> int:
        cache = AnswerCache(tmp_path / "judge.sqlite")
        commits = []
        commit = cache._commit
        cache._commit = lambda entries: (commits.append(len(entries)), commit(entries))[1]  # type: ignore[assignment]
        await asyncio.gather(*(cache.store(replace(ENTRY, key=str(n))) for n in range(100)))
        assert all(cache.get(str(n)) is not None for n in range(100))
        cache.close()
        return len(commits)

    assert asyncio.run(work()) < 10


def test_what_arrived_is_kept_though_nobody_waits_for_it(tmp_path: Path) -> None:
    async def work() -> None:
        cache = AnswerCache(tmp_path / "judge.sqlite")
        storing = asyncio.create_task(cache.store(ENTRY))
        await asyncio.sleep(0)
        storing.cancel()
        await cache.drain()
        cache.close()

    asyncio.run(work())
    with sqlite3.connect(tmp_path / "judge.sqlite") as reader:
        assert reader.execute("SELECT count(*) FROM answers").fetchone() == (1,)


def test_qualifications_come_the_latest_first(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "judge.sqlite")
    assert cache.qualifications(_URL, "m") == []
    for report in ("{}", '{"misses": 0.1}'):
        cache.add_qualification(_URL, "m", report)
    assert cache.qualifications(_URL, "m") == ['{"misses": 0.1}', "{}"]
    assert cache.qualifications(_URL, "other") == []
    cache.close()
