"""The judge on the command line: dry runs, Ctrl-C in the middle, looking into its answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from judge_questions import ask, question
from judge_server import Fault, JudgeServer, default_answer
from study_folder import change_setting, contents

from safesail.judging import AnswerCache, Judge, Price, Prices
from safesail.pipeline import load_results
from safesail.study import (
    CandidateSettings,
    ConceptSettings,
    Configuration,
    CorpusSettings,
    CorpusSource,
    ModelSettings,
    Study,
)

Copy = Callable[[Path], Path]
Run = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-c", "from safesail.cli import main; main()"]


def test_a_dry_run_asks_nothing(explained: Path, copy: Copy, run: Run) -> None:
    folder = copy(explained)
    before = contents(folder)
    with JudgeServer() as server:
        judge = ("--judge-url", server.url, "--judge-model", "j")
        code, out, _ = run("explain", "--study", folder, *judge, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["calls"] > json.loads(out)["features"] > 0
    assert server.requests == []
    assert contents(folder) == before


@pytest.mark.proof
def test_ctrl_c_keeps_what_was_finished(explained: Path, copy: Copy, run: Run) -> None:
    folder = copy(explained)
    change_setting(folder, "[collection]", "[judge]\nconcurrency = 2\n\n[collection]")
    asked: list[float] = []

    def slow_after_some(body: dict) -> str:
        asked.append(time.monotonic())
        server.delay = 0.5 if len(asked) > 12 else 0.0
        return default_answer(body)

    with JudgeServer() as server:
        server.answer = slow_after_some
        process = subprocess.Popen(
            [
                *COMMAND,
                "explain",
                "--study",
                folder,
                "--judge-url",
                server.url,
                "--judge-model",
                "j",
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # Whatever started the tests may ignore Ctrl-C, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while len(asked) < 16 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert err.splitlines()[-1].startswith("stopped; what was finished is kept")
        assert "Traceback" not in out + err
        rows = load_results(Study.open(folder), "explanations").to_pylist()
        finished = [row for row in rows if row["judge_model"] == "j"]
        assert finished
        lexical = [row for row in rows if row["explainer"] == "lexical"]
        assert len(lexical) == load_results(Study.open(explained), "explanations").num_rows
        paid = len(server.requests)
        server.answer = default_answer
        server.delay = 0.0
        judge = ("--judge-url", server.url, "--judge-model", "j")
        code, _, again = run("explain", "--study", folder, *judge)
    assert code == 0, again
    rows = load_results(Study.open(folder), "explanations").to_pylist()
    judged = [row for row in rows if row["judge_model"] == "j"]
    assert len(judged) == len(lexical) == len({row["feature"] for row in judged})
    for row in finished:
        assert row in judged
    # Nothing that was answered is asked again.
    bodies = [json.dumps(body, sort_keys=True) for body in server.requests]
    answered = set(bodies[: paid - 2])
    assert not answered & set(bodies[paid:])


@pytest.fixture
def answered(tmp_path: Path) -> Path:
    """A study whose judges have answered four questions, refused one, and failed at one."""
    text = Configuration(
        model=ModelSettings(name="m"),
        candidates=CandidateSettings(),
        concepts=ConceptSettings(files=["builtin:starter"]),
        corpus=CorpusSettings(sources=[CorpusSource(path="corpus.txt")]),
    ).to_toml()
    (tmp_path / "safesail.toml").write_text(text, encoding="utf-8")
    cache = tmp_path / "judge.sqlite"
    with JudgeServer() as server:
        server.answer = lambda body: '{"verdict": 3}'
        server.faults += [Fault(), Fault(refusal="No \x1b[31m‮."), Fault(status=413)]
        prices = Prices({"priced": Price(input=100, output=1000)})
        judge = Judge(server.url, "priced", cache=cache, prices=prices, concurrency=1)
        tasks = ("explain", "items", "explain", "items", "items")
        ask(judge, *(question(f"Of {n}?", task=task) for n, task in enumerate(tasks)))
        ask(Judge(server.url, "free", cache=cache), question("Free?", task="items"))
    return tmp_path


def test_the_log_lists_the_latest_answers(answered: Path, run: Run) -> None:
    code, out, _ = run("judge", "log", "--study", answered, "--json")
    assert code == 0
    rows = json.loads(out)
    statuses = [row["status"] for row in rows]
    assert statuses == ["answered", "answered", "answered", "refused", "answered"]
    assert [row["model"] for row in rows] == ["free"] + ["priced"] * 4
    # 5 characters of question and 14 of answer, as the server counts, at 100 and 1000 a million.
    assert rows[1]["cost_usd"] == pytest.approx((1 * 100 + 4 * 1000) / 1e6)
    assert rows[0]["cost_usd"] is None
    code, out, _ = run("judge", "log", "--study", answered, "--task", "explain", "--limit", "1")
    assert code == 0
    assert out.count("explain") == 1


def test_one_answer_is_shown_with_control_characters_made_visible(answered: Path, run: Run) -> None:
    _, out, _ = run("judge", "log", "--study", answered, "--json")
    (refused,) = [row for row in json.loads(out) if row["status"] == "refused"]
    code, out, _ = run("judge", "log", "--study", answered, "--show", refused["key"][:10])
    assert code == 0
    assert "Of 1?" in out
    assert "\x1b" not in out
    assert "‮" not in out
    assert "No" in out
    code, _, err = run("judge", "log", "--study", answered, "--show", "none-like-this")
    assert code == 1
    assert "no answer" in err
    code, _, err = run("judge", "log", "--study", answered, "--show", "")
    assert code == 1
    assert "5 answers" in err


def test_stats_add_up_by_model_and_task(answered: Path, run: Run) -> None:
    code, out, _ = run("judge", "stats", "--study", answered, "--json")
    assert code == 0
    found = {(row["model"], row["task"]): row for row in json.loads(out)}
    assert {key: row["answers"] for key, row in found.items()} == {
        ("free", "items"): 1,
        ("priced", "explain"): 1,
        ("priced", "items"): 3,
    }
    assert found["priced", "items"]["prompt_tokens"] == 3
    assert 0 < found["priced", "items"]["median_seconds"] <= found["priced", "items"]["p95_seconds"]
    assert (found["free", "items"]["cost_usd"], found["free", "items"]["unpriced"]) == (None, 1)
    code, out, err = run("judge", "stats", "--study", answered)
    assert code == 0
    assert "1 answers have no price" in out
    assert "requests that failed are not kept" in err


def test_forgetting_asks_first_and_takes_what_fits_all_options(answered: Path, run: Run) -> None:
    def left() -> int:
        return len(json.loads(run("judge", "log", "--study", answered, "--json")[1]))

    assert run("judge", "forget", "--study", answered)[0] == 2
    assert run("judge", "forget", "--study", answered, "--all", "--refused", "--yes")[0] == 2
    with closing(AnswerCache(answered / "judge.sqlite")) as cache:
        cache.add_qualification("http://127.0.0.1/v1", "priced", "{}")
    code, _, err = run("judge", "forget", "--study", answered, "--all")
    assert code == 2
    assert "and 1 report" in err
    code, _, err = run("judge", "forget", "--study", answered, "--all")
    assert code == 2
    assert "--yes" in err
    assert left() == 5
    code, out, _ = run("judge", "forget", "--study", answered, "--refused", "--yes", "--json")
    assert (code, json.loads(out)["deleted"], left()) == (0, 1, 4)
    options = ("--model", "priced", "--task", "items", "--yes")
    code, out, _ = run("judge", "forget", "--study", answered, *options)
    assert (code, left()) == (0, 2)
    assert "deleted 2 answers, of which 2 cost 0.0082 US dollars" in out
    assert run("judge", "forget", "--study", answered, "--key", "nothing", "--yes")[0] == 0
    code, out, _ = run("judge", "forget", "--study", answered, "--all", "--yes")
    assert (code, left()) == (0, 0)
    assert out.strip().endswith(", and 1 report of what judges were found to be worth")
    with closing(AnswerCache(answered / "judge.sqlite")) as cache:
        assert cache.qualifications("http://127.0.0.1/v1", "priced") == []


def test_a_study_without_answers_is_told(answered: Path, run: Run) -> None:
    (answered / "judge.sqlite").unlink()
    for command in ("log", "stats"):
        code, _, err = run("judge", command, "--study", answered)
        assert code == 1
        assert "no judge has answered yet" in err
    assert not (answered / "judge.sqlite").exists()
