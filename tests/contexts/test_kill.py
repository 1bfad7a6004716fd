"""`safesail collect`, killed again and again, ends with the tables of a run that was left alone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collected import left_over, make_ranked, tables
from study_folder import copy_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and SIGKILL")
RUNS = 20
# Runs the command in a fork for each line that it is given: what takes seconds to import is
# imported once. The first fork tells what a run imports.
_FORKING = """
import importlib, json, os, sys
import safesail.cli

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = order["argv"]
        code = 1
        try:
            safesail.cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        if order["modules"]:
            with open(order["modules"], "w") as file:
                json.dump(list(sys.modules), file)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    if order["modules"]:
        for name in json.load(open(order["modules"])):
            try:
                importlib.import_module(name)
            except Exception:
                pass
    print("ready", flush=True)
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Forking:
    """Runs of the command in forks of one process."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.log = folder / "log"

    def collect(self, study: Path, kill_after: float | None = None, *, first: bool = False) -> int:
        """Collect, killed after so many seconds; returns the exit code."""
        modules = str(self._folder / "modules.json") if first else ""
        argv = ["safesail", "collect", "--study", str(study), "--sae", "first"]
        order = {"argv": argv, "log": str(self.log), "modules": modules}
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        child = int(self._server.stdout.readline())
        if kill_after is not None:
            ended, _, _ = select.select([self._server.stdout], [], [], kill_after)
            if not ended:
                os.kill(child, signal.SIGKILL)
        code = int(self._server.stdout.readline())
        assert self._server.stdout.readline() == "ready\n"
        return code


@pytest.fixture(scope="module")
def ranked(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ranked(fresh, tmp_path_factory.mktemp("ranked") / "study")


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with subprocess.Popen(
        [sys.executable, "-c", _FORKING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as server:
        yield Forking(server, tmp_path_factory.mktemp("forking"))
        assert server.stdin
        server.stdin.close()


@pytest.fixture(scope="module")
def unkilled(
    ranked: Path, forking: Forking, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[str]], float]:
    """Tables of a run that was left alone, and its seconds, everything imported."""
    folder = copy_study(ranked, tmp_path_factory.mktemp("whole") / "study")
    assert forking.collect(folder, first=True) == 0, forking.log.read_text()
    known = tables(folder)
    assert not left_over(folder)
    seconds = []
    for number in range(2):
        folder = copy_study(ranked, tmp_path_factory.mktemp("whole") / f"study{number}")
        began = time.monotonic()
        assert forking.collect(folder) == 0
        seconds.append(time.monotonic() - began)
        assert tables(folder) == known
    assert sum(map(len, known.values())) > 200
    return known, min(seconds)


def checkpoints(study: Path) -> dict[str, int]:
    """When each checkpoint was written."""
    return {
        path.name: path.stat().st_mtime_ns
        for path in (study / "collection").glob("*/shard-*.checkpoint-?")
    }


def phase(study: Path, before: dict[str, int]) -> str:
    """Where a run was killed, by what it left; `before` are the checkpoints that it found."""
    if list((study / "collection").glob("*/finished.work")):
        return "writing tables"
    if not list((study / "collection").glob("*/plan.json")):
        written = list((study / "contexts").glob("*/part-*"))
        return "writing tables" if written else "starting"
    return "starting" if checkpoints(study) == before else "in the pass"


def kill_again_and_again(
    collect: Callable[[Path, float | None], int],
    study: Path,
    waits: Iterator[float],
    killed: Counter[str],
) -> int:
    """Run until it ends by itself; returns how often it was killed."""
    kills = 0
    while True:
        before = checkpoints(study)
        code = collect(study, next(waits, None))
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
        killed[phase(study, before)] += 1
        kills += 1


def kill_runs(
    runs: int,
    ranked: Path,
    forking: Forking,
    unkilled: tuple[dict[str, list[str]], float],
    tmp_path: Path,
) -> Counter[str]:
    """Runs in forks, the first kill of each in another part of the time; returns where they hit."""
    known, seconds = unkilled
    killed: Counter[str] = Counter()
    for number in range(runs):
        generator = random.Random(number)
        first = seconds * (number + generator.random()) / runs

        def waits(first: float, generator: random.Random) -> Iterator[float]:
            yield first
            for _ in range(6):
                yield generator.uniform(0, seconds)

        while True:
            study = copy_study(ranked, tmp_path / f"study{number}-{first}")
            kills = kill_again_and_again(forking.collect, study, waits(first, generator), killed)
            assert tables(study) == known
            assert not left_over(study)
            if kills:
                break
            first *= 0.8  # it was over before
        killed["kills"] += kills
        killed["runs"] += 1
    return killed


def test_two_killed_runs_end_with_the_tables_of_one_left_alone(
    ranked: Path,
    forking: Forking,
    unkilled: tuple[dict[str, list[str]], float],
    tmp_path: Path,
    record_property: Any,
) -> None:
    killed = kill_runs(2, ranked, forking, unkilled, tmp_path)
    record_property("kills", dict(killed))
    assert killed["kills"] >= 2


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_twenty_killed_runs_end_with_the_tables_of_one_left_alone(
    ranked: Path,
    forking: Forking,
    unkilled: tuple[dict[str, list[str]], float],
    tmp_path: Path,
    record_property: Any,
) -> None:
    began = time.monotonic()
    killed = kill_runs(RUNS - 1, ranked, forking, unkilled, tmp_path)
    killed += kill_the_command_itself(ranked, unkilled, tmp_path)
    record_property("kills", dict(killed))
    record_property("seconds of a run left alone", unkilled[1])
    record_property("seconds of all", time.monotonic() - began)
    assert killed["runs"] == RUNS
    assert killed["in the pass"] >= RUNS // 3
    assert killed["starting"] >= 2
    assert killed["writing tables"] >= 1


def kill_the_command_itself(
    ranked: Path, unkilled: tuple[dict[str, list[str]], float], tmp_path: Path
) -> Counter[str]:
    """As a user starts it, imports and all; killed in the pass."""
    known, seconds = unkilled
    study = copy_study(ranked, tmp_path / "command")
    generator = random.Random(RUNS)

    def collect(study: Path, kill_after: float | None) -> int:
        command = [sys.executable, "-c", "from safesail.cli import main; main()"]
        command += ["collect", "--study", str(study), "--sae", "first"]
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            if kill_after is not None:
                while not checkpoints(study) and run.poll() is None:
                    time.sleep(0.005)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(kill_after)
                run.kill()
        return run.returncode

    killed: Counter[str] = Counter()
    waits = iter([generator.uniform(0, seconds / 4)])
    kills = kill_again_and_again(collect, study, waits, killed)
    assert kills == 1
    assert killed["in the pass"] == 1
    assert tables(study) == known
    assert not left_over(study)
    killed["kills"] += kills
    killed["runs"] += 1
    return killed
