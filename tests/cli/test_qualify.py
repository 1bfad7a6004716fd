"""`safesail judge qualify`: what is printed, kept, and gone by in a dry run."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from study_folder import change_setting

from safesail.errors import StudyConflictError
from safesail.judging import AnswerCache
from safesail.lab.judge import MODEL, KnownTruthJudge, Quality
from safesail.lab.planted_features import planted_features
from safesail.pipeline import qualify
from safesail.pipeline._lock import held
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(tmp_path: Path, run: Run) -> Path:
    """A study in which nothing was done yet."""
    code, _, said = run("init", tmp_path / "study")
    assert code == 0, said
    return tmp_path / "study"


def asking(study: Path, url: str, *more: str) -> list[str | Path]:
    judge = ["--judge-url", url, "--judge-model", MODEL]
    return ["judge", "qualify", "--study", study, *judge, "--features", "6", *more]


def report(study: Path, url: str) -> str | None:
    cache = AnswerCache(study / "judge.sqlite")
    try:
        return next(iter(cache.qualifications(url, MODEL)), None)
    finally:
        cache.close()


def test_a_good_judge_qualifies(study: Path, run: Run) -> None:
    with KnownTruthJudge("good") as judge:
        code, out, said = run(*asking(study, judge.url))
        asked = judge.log.asked
        assert (code, asked) == (0, judge.log.answered), said
        assert "qualifies" in out.splitlines()
        assert f"{asked} of {asked}" in out
        assert f"{asked} requests sent now" in out
        assert "6 features of the lab" in out
        assert "upper guess from 5 features" in out
        # Again, for machines: the same figures, and nothing is sent.
        code, out, _ = run(*asking(study, judge.url, "--json"))
        kept = json.loads(report(study, judge.url) or "")
    found = json.loads(out)
    assert (code, judge.log.asked, found["calls"]) == (0, asked, 0)
    assert found["qualifies"] is True
    assert found["misses"]["low"] < found["misses"]["value"] < found["misses"]["high"]
    assert found["seconds"].keys() == {"explain", "items"}
    assert all(value > 0 for value in found["seconds"].values())
    assert kept == {name: value for name, value in found.items() if name != "qualifies"}


def test_a_bad_judge_does_not(study: Path, run: Run) -> None:
    with KnownTruthJudge(Quality(bias=3.0), refusals=0.3) as judge:
        code, out, _ = run(*asking(study, judge.url))
        assert report(study, judge.url) is not None
    assert code == 3
    faults = [line for line in out.splitlines() if line.startswith("does not qualify: ")]
    assert len(faults) == 4
    assert "refused" in faults[0]
    assert "qualifies" not in out.splitlines()


def test_an_unfinished_one_is_not_kept(study: Path, run: Run) -> None:
    with KnownTruthJudge("good") as judge:
        code, out, _ = run(*asking(study, judge.url, "--budget", "12000tokens"))
        assert report(study, judge.url) is None
    assert code == 3
    assert "not finished: the budget was spent" in out


def test_a_second_one_at_once_pays_for_nothing(study: Path, run: Run) -> None:
    with KnownTruthJudge("good") as judge:
        with held(study / "explanations", wait=False):
            code, _, said = run(*asking(study, judge.url))
        assert (code, judge.log.asked) == (1, 0)
        (line,) = said.splitlines()
        assert "another process qualifies a judge" in line
        # A study that is written to meanwhile is no hindrance, nor is the judge's lock to it.
        with held(study, wait=False):
            assert run(*asking(study, judge.url))[0] == 0


def test_two_at_once_pay_once(study: Path) -> None:
    opened, features = Study.open(study), planted_features(6)
    with KnownTruthJudge("good", delay=0.2) as judge, ThreadPoolExecutor(2) as pool:
        opened = opened.with_judge(url=judge.url, model=MODEL)
        both = [pool.submit(qualify, opened, features) for _ in range(2)]
        failed = [one.exception() for one in both]
        asked = judge.log.asked
    assert [type(one) for one in failed if one] == [StudyConflictError]
    assert asked == next(one for one in both if not one.exception()).result().calls


def test_without_a_judge_the_option_is_named(study: Path, run: Run) -> None:
    code, _, said = run("judge", "qualify", "--study", study)
    assert code == 1
    assert "--judge-model" in said


@pytest.mark.parametrize("count", ["4", "33"])
def test_features_are_as_many_as_there_are(study: Path, run: Run, count: str) -> None:
    assert run("judge", "qualify", "--study", study, "--features", count)[0] == 2


def test_a_dry_run_goes_by_it(explained: Path, copy: Callable[[Path], Path], run: Run) -> None:
    folder = copy(explained)
    with KnownTruthJudge("medium") as judge:
        dry = ["explain", "--study", folder, "--judge-url", f"{judge.url}/", "--judge-model", MODEL]
        dry += ["--dry-run", "--json"]
        before = json.loads(run(*dry)[1])
        assert "nothing is known of this judge" in before["basis"]
        assert run(*asking(folder, judge.url))[0] == 0
        asked = judge.log.asked
        found = json.loads(report(folder, judge.url) or "")["experience"]
        after = json.loads(run(*dry)[1])
        assert judge.log.asked == asked
        assert after["basis"] == "by 6 lab features that this judge was qualified on"
        # Its answers are shorter than the usual ones, which the forecast now knows.
        assert found["completion_factor"] < 0.6
        share = after["completion_tokens"] / before["completion_tokens"]
        assert share < 0.7
        assert json.loads(run(*dry, "--precision", "0.2")[1])["basis"].endswith(
            ", at a precision of 0.1 instead of 0.2"
        )
        # Of several, the one that was asked as the run will ask.
        assert run(*asking(folder, judge.url, "--precision", "0.2"))[0] == 0
        assert run(*asking(folder, judge.url, "--precision", "0.3"))[0] == 0
        bases = [json.loads(run(*dry, "--precision", p)[1])["basis"] for p in ("0.2", "0.27")]
        assert bases[0].endswith("that this judge was qualified on")
        assert bases[1].endswith(", at a precision of 0.3 instead of 0.27")
        other = json.loads(run(*dry[:-3], "another", *dry[-2:])[1])
        assert "nothing is known of this judge" in other["basis"]


def test_the_report_of_another_version_is_left_aside(
    explained: Path, copy: Callable[[Path], Path], run: Run
) -> None:
    folder = copy(explained)
    change_setting(
        folder,
        "[collection]",
        f'[judge]\nurl = "http://127.0.0.1:9/v1"\nmodel = "{MODEL}"\n\n[collection]',
    )
    cache = AnswerCache(folder / "judge.sqlite")
    cache.add_qualification("http://127.0.0.1:9/v1", MODEL, '{"misses": 1}')
    cache.close()
    code, out, said = run("explain", "--study", folder, "--dry-run", "--json")
    assert code == 0, said
    assert "nothing is known of this judge" in json.loads(out)["basis"]
