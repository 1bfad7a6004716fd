"""Runs of a judge that go by batches, are rate-limited, killed, or two at once: the same table."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from judged_study import (
    FEATURES,
    QUALITY,
    TAKEN,
    TAKEN_ELSEWHERE,
    Whole,
    answers_in,
    asking,
    assert_same,
    paid_for,
    rows_of,
)
from study_folder import change_setting, copy_study

from safesail.judging import BatchPace
from safesail.lab.judge import MODEL, BatchBehaviour, Faults, KnownTruthJudge

Run = Callable[..., Any]

COMMAND = [sys.executable, "-c", "from safesail.cli import main; main()"]
AT_ONCE = 8  # the setting's default


def test_batches_make_the_same_table(
    study: Path, collected: Path, tmp_path: Path, safesail: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = BatchPace(quiet=0.1, first_poll=0.05)
    monkeypatch.setattr("safesail.judging._judge.BatchPace", lambda: pace)
    batched = copy_study(collected, tmp_path / "batched")
    for folder in (study, batched):
        prices = f'[models."{MODEL}"]\ninput = 1.0\noutput = 2.0\nbatch = 0.5\n'
        (folder / "prices.toml").write_text(prices, encoding="utf-8")
        change_setting(folder, '# prices = ""', 'prices = "prices.toml"')
    with KnownTruthJudge(QUALITY, batches=BatchBehaviour(delay=0.02)) as judge:
        safesail(*asking(study, judge.url))
        asked = judge.log.asked
        safesail(*asking(batched, judge.url, "--batch"))
        batches = httpx.get(f"{judge.url}/batches", params={"limit": 100}).json()["data"]
        # The same questions, one of which goes alone to learn how the endpoint is asked.
        assert set(judge.log.paid.values()) == {2}
        assert judge.log.asked == 2 * asked
        assert {batch["status"] for batch in batches} == {"completed"}
        assert sum(batch["request_counts"]["completed"] for batch in batches) == asked - 1
        assert len(batches) < asked / 4
    single, by_batch = rows_of(study), rows_of(batched)
    assert len(single) == FEATURES
    assert set(single["status"]) == {"scored"}
    assert_same(single, by_batch, but=TAKEN)
    total = single["cost_usd"].sum()
    assert 0.5 * total < by_batch["cost_usd"].sum() < 0.6 * total


def test_rate_limits_change_nothing_but_the_calls(study: Path, whole: Whole, safesail: Run) -> None:
    faults = Faults(rate_limited=0.3, retry_after=0.01)
    with KnownTruthJudge(QUALITY, faults=faults) as judge:
        safesail(*asking(study, judge.url))
    rows = rows_of(study)
    assert judge.log.faulted["rate_limited"] > 0
    assert rows["calls"].sum() == judge.log.asked
    assert judge.log.paid == whole.paid
    assert_same(rows, whole.rows, but=TAKEN_ELSEWHERE)


def test_what_failed_is_counted_and_asked_again(study: Path, safesail: Run) -> None:
    # So often that some questions fail for good, in the pilot too.
    faults = Faults(rate_limited=0.8, retry_after=0.002)
    with KnownTruthJudge(QUALITY, faults=faults) as judge:
        safesail(*asking(study, judge.url))
        rows = rows_of(study)
        assert {"failed", "scored"} <= set(rows["status"])
        assert (rows["missing_failed"] == rows["missing"])[rows["status"] == "scored"].all()
        assert rows["missing_failed"][rows["status"] == "scored"].max() > 0
        assert rows["calls"].sum() == judge.log.asked
        assert rows["prompt_tokens"].sum() == judge.log.prompt_tokens
        assert rows["completion_tokens"].sum() == judge.log.completion_tokens
        assert rows["error"][rows["status"] == "failed"].str.contains("429").all()
        for _ in range(10):
            ended = (rows["status"] == "scored") & (rows["missing_failed"] == 0)
            if ended.all():
                break
            safesail(*asking(study, judge.url))
            again = rows_of(study)
            assert_same(again[ended], rows[ended], but=[])
            rows = again
        assert set(rows["status"]) == {"scored"}
        assert set(rows["missing"]) == {0}
    assert set(judge.log.paid.values()) == {1}


@contextmanager
def another_process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which is killed in the end."""
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(
    study: Path, whole: Whole, safesail: Run
) -> None:
    with KnownTruthJudge(QUALITY, delay=0.1) as judge:
        with another_process(*asking(study, judge.url)) as process:
            wait_until(process, lambda: judge.log.asked >= 24)
            process.send_signal(signal.SIGKILL)
            process.wait()
        kept = {paid_for(answer) for answer in answers_in(study)}
        assert 24 - AT_ONCE <= len(kept) < len(whole.paid)
        assert kept <= judge.log.paid.keys()
        safesail(*asking(study, judge.url))
    assert judge.log.paid.keys() == whole.paid.keys()
    # What was under way is asked again, and no answer that had arrived.
    twice = {name for name, times in judge.log.paid.items() if times > 1}
    assert twice.isdisjoint(kept)
    assert len(twice) <= AT_ONCE
    assert_same(rows_of(study), whole.rows, but=TAKEN_ELSEWHERE)


def test_a_second_process_is_told_that_the_study_is_being_explained(
    study: Path, whole: Whole, safesail: Run
) -> None:
    with KnownTruthJudge(QUALITY, delay=0.3) as judge:
        with another_process(*asking(study, judge.url)) as process:
            wait_until(process, lambda: judge.log.asked > 0)
            done = safesail(*asking(study, judge.url), exit_code=1)
            assert "another process explains features" in done.stderr
            # A forecast writes nothing.
            safesail(*asking(study, judge.url, "--dry-run"))
            assert process.poll() is None
            _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        before = rows_of(study)
        safesail(*asking(study, judge.url))
    assert judge.log.paid == whole.paid
    assert_same(rows_of(study), before, but=[])
    assert_same(before, whole.rows, but=TAKEN_ELSEWHERE)
