"""Explaining with a judge on the command line: dry runs, and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from judge_server import JudgeServer, default_answer
from study_folder import change_setting, contents

from safesail.pipeline import load_results
from safesail.study import Study

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
