"""A run that is killed outright loses no answer that had arrived."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_server import JudgeServer

_RUN = """
import asyncio, sys
from pathlib import Path
from pydantic import BaseModel
from safesail.judging import Judge, Question

class Verdict(BaseModel):
    verdict: int

async def run():
    async with Judge(sys.argv[1], "m", cache=Path(sys.argv[2]), concurrency=2) as judge:
        questions = [Question("count", "count/1", [{"role": "user", "content": str(n)}], Verdict, 9)
                     for n in range(40)]
        answers = await asyncio.gather(*(judge.ask(question) for question in questions))
    print(sum(answer.calls for answer in answers), {answer.status for answer in answers})

asyncio.run(run())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_run_pays_for_nothing_twice(tmp_path: Path) -> None:
    cache = tmp_path / "judge.sqlite"
    with JudgeServer() as server:
        server.answer = lambda body: json.dumps({"verdict": 1})
        server.delay = 0.05
        command = [sys.executable, "-c", _RUN, server.url, str(cache)]
        with subprocess.Popen(command) as run:
            while len(server.requests) < 12 and run.poll() is None:
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
        assert run.returncode == -signal.SIGKILL
        with sqlite3.connect(cache) as reader:
            ((kept,),) = reader.execute("SELECT count(*) FROM answers").fetchall()
        # Two requests may be under way, two more answered but not yet received.
        assert len(server.requests) - 4 <= kept < 40
        second = subprocess.run(command, capture_output=True, text=True, check=True)
        assert second.stdout.split(maxsplit=1) == [str(40 - kept), "{'answered'}\n"]
