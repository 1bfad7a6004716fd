"""A study explained by the known-truth judge: budgets, prices, scorers, languages, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from judged_study import (
    FEATURES,
    PILOTS,
    QUALITY,
    SAE,
    TAKEN_ELSEWHERE,
    Whole,
    answers_in,
    asking,
    assert_same,
    is_refusal,
    rows_of,
    tokens_of,
)
from study_folder import change_setting

from safesail.lab.judge import MODEL, Faults, KnownTruthJudge
from safesail.tables import EXPLANATIONS

Run = Callable[..., Any]

INPUT, OUTPUT = 1.5, 4.0  # dollars per million tokens


def test_a_dry_run_sends_nothing_and_after_the_pilot_forecasts_the_bill(
    study: Path, safesail: Run
) -> None:
    with KnownTruthJudge(QUALITY) as judge:
        before = sorted(study.rglob("*"))
        dry = json.loads(safesail(*asking(study, judge.url, "--dry-run", "--json")).stdout)
        assert judge.log.asked == 0
        assert sorted(study.rglob("*")) == before
        assert "nothing is known" in dry["basis"]
        safesail(*asking(study, judge.url, limit=PILOTS))
        asked, taken = judge.log.asked, tokens_of(judge.log)
        dry = json.loads(safesail(*asking(study, judge.url, "--dry-run", "--json")).stdout)
        assert judge.log.asked == asked
        safesail(*asking(study, judge.url))
        used = tokens_of(judge.log) - taken
    assert (dry["features"], dry["skipped"]) == (FEATURES - PILOTS, 0)
    assert dry["prompt_tokens"] + dry["completion_tokens"] == pytest.approx(used, rel=0.15)
    assert dry["least_tokens"] <= used <= dry["most_tokens"]


def test_a_budget_ends_cleanly_and_a_greater_one_goes_on(
    study: Path, whole: Whole, safesail: Run
) -> None:
    with KnownTruthJudge(QUALITY) as judge:
        done = safesail(*asking(study, judge.url, "--budget", "2e4tokens"))
        assert 0.9 * 2e4 < tokens_of(judge.log) < 1.05 * 2e4
        rows = rows_of(study)
        counts = rows["status"].value_counts()
        assert len(rows) == FEATURES
        assert set(counts.index) == {"scored", "budget"}
        assert f"{counts['scored']} scored, {counts['budget']} budget" in done.stdout or (
            f"{counts['budget']} budget, {counts['scored']} scored" in done.stdout
        )
        # What is not whole says so; what is scored is as without a budget.
        ended = rows["status"] == "scored"
        assert rows["error"][~ended].str.contains("the budget of 20000 tokens is spent").all()
        assert_same(rows[ended], whole.rows[ended], but=TAKEN_ELSEWHERE)
        safesail(*asking(study, judge.url, "--budget", "1e6tokens"))
    assert judge.log.paid == whole.paid
    assert_same(rows_of(study), whole.rows, but=TAKEN_ELSEWHERE)


def test_many_small_budgets_end_as_one_run_does(study: Path, whole: Whole, safesail: Run) -> None:
    """The pilot, on which all intervals depend, and single features are stopped in the middle."""
    in_part, unscored, runs = 0, FEATURES, 0
    with KnownTruthJudge(QUALITY) as judge:
        while unscored:
            before = tokens_of(judge.log)
            safesail(*asking(study, judge.url, "--budget", "6e3tokens"))
            assert 0 < tokens_of(judge.log) - before < 2 * 6e3
            rows = rows_of(study)
            assert set(rows["status"]) <= {"scored", "budget"}
            assert set(rows["missing"][rows["status"] == "scored"]) <= {0}
            unscored = (rows["status"] == "budget").sum()
            in_part += rows["error"].str.startswith("scored in part").sum()
            runs += 1
    assert runs >= 4
    assert in_part > 0
    assert judge.log.paid == whole.paid
    assert_same(rows, whole.rows, but=TAKEN_ELSEWHERE)


def test_dollars_need_a_price_and_the_table_holds_them(study: Path, safesail: Run) -> None:
    with KnownTruthJudge(QUALITY) as judge:
        done = safesail(*asking(study, judge.url, "--budget", "5usd"), exit_code=1)
        assert judge.log.asked == 0
        assert MODEL in done.stderr
        assert "price" in done.stderr
        prices = f'[models."{MODEL}"]\ninput = {INPUT}\noutput = {OUTPUT}\n'
        (study / "prices.toml").write_text(prices, encoding="utf-8")
        change_setting(study, '# prices = ""', 'prices = "prices.toml"')
        done = safesail(*asking(study, judge.url, "--budget", "0.03usd"))
        rows = rows_of(study)
        billed = (judge.log.prompt_tokens * INPUT + judge.log.completion_tokens * OUTPUT) / 1e6
        assert 0.02 < billed < 1.05 * 0.03
        assert rows["cost_usd"].sum() == pytest.approx(billed)
        assert f"({billed:.2f} dollars)" in done.stdout
        assert {"scored", "budget"} == set(rows["status"])
        safesail(*asking(study, judge.url, "--budget", "5usd"))
    rows = rows_of(study)
    assert set(rows["status"]) == {"scored"}
    costs = (rows["prompt_tokens"] * INPUT + rows["completion_tokens"] * OUTPUT) / 1e6
    assert rows["cost_usd"].tolist() == pytest.approx(costs.tolist())


def test_rows_of_every_scorer_stand_beside_one_another(study: Path, safesail: Run) -> None:
    tasks = {"tokens": "simulate"}
    scorers = ["items", "segments", "tokens", "detection", "fuzzing"]
    with KnownTruthJudge("good") as judge:
        for scorer in scorers:
            safesail(*asking(study, judge.url, "--scorer", scorer, limit=2))
        rows, asked = rows_of(study), judge.log.asked
        safesail(*asking(study, judge.url, "--scorer", "segments", limit=2))
        assert judge.log.asked == asked
        assert_same(rows_of(study), rows, but=[])
    assert set(judge.log.paid.values()) == {1}
    # The explanation is the same: it is asked for once.
    assert judge.log.by_task["explain"]["answered"] == rows["feature"].nunique() == 2
    assert rows.groupby("feature")["explanation"].nunique().tolist() == [1, 1]
    assert rows.groupby("feature")["scorer"].agg(set).tolist() == [set(scorers)] * 2
    assert rows["item_format"].groupby(rows["scorer"]).first().nunique() == len(scorers)
    for scorer, of_scorer in rows.groupby("scorer"):
        asked = judge.log.by_task[tasks.get(scorer, scorer)]["answered"]
        assert of_scorer["prompts"].sum() == asked
        assert of_scorer["precision"].isna().all() == (scorer != "items")
    # Chance is the same whatever the classes' balance, and stands in the schema.
    (column,) = (one for one in EXPLANATIONS.columns if one.name == "discrimination")
    assert "0.5 is chance" in column.meaning
    assert rows["discrimination"].between(0, 1).all()
    contexts = pd.read_parquet(study / "contexts" / SAE)
    drawn = contexts[(contexts["split"] == "score") & (contexts["sample"] == "random")]
    for feature in rows["feature"].unique():
        windows = drawn[drawn["feature"] == feature]
        of_feature = rows[rows["feature"] == feature].set_index("scorer")
        balance = (windows["kind"] == "active").mean()
        for scorer in ("segments", "tokens", "detection"):
            assert of_feature["active_share"][scorer] == pytest.approx(balance)
            assert of_feature["observations"][scorer] == len(windows)
        # Every second active window is wrongly marked, and silent at its marks.
        assert of_feature["active_share"]["fuzzing"] == pytest.approx(balance / 2, abs=0.01)
        assert 0.4 < of_feature["active_share"]["items"] < 0.65


def test_a_finer_precision_asks_what_is_missing_and_a_coarser_one_nothing(
    study: Path, safesail: Run
) -> None:
    with KnownTruthJudge(QUALITY) as judge:
        safesail(*asking(study, judge.url, "--precision", "0.2"))
        coarse, asked = rows_of(study), judge.log.asked
        safesail(*asking(study, judge.url, "--precision", "0.05"))
        fine, more = rows_of(study), judge.log.asked
        safesail(*asking(study, judge.url, "--precision", "0.1"))
        assert judge.log.asked == more > asked
    assert (set(coarse["precision"]), set(fine["precision"])) == ({0.2}, {0.05})
    assert len(coarse) == len(fine) == FEATURES
    assert set(judge.log.paid.values()) == {1}
    assert judge.log.by_task["explain"]["answered"] == FEATURES
    assert (fine["prompts"] == 2).sum() > (coarse["prompts"] == 2).sum()
    assert fine["explanation"].tolist() == coarse["explanation"].tolist()
    # One that is more precise than asked stays as it is.
    assert_same(rows_of(study), fine, but=[])


def test_languages_stand_beside_one_another(study: Path, safesail: Run) -> None:
    with KnownTruthJudge("good") as judge:
        safesail(*asking(study, judge.url, limit=3))
        english = rows_of(study)
        safesail(*asking(study, judge.url, "--language", "zh", limit=3))
        asked = judge.log.asked
        safesail(*asking(study, judge.url, limit=3))
        safesail(*asking(study, judge.url, "--language", "zh", limit=3))
        assert judge.log.asked == asked
    rows = rows_of(study)
    of = {language: found.reset_index(drop=True) for language, found in rows.groupby("language")}
    assert_same(of["en"], english, but=[])
    assert of["zh"]["feature"].tolist() == english["feature"].tolist()
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert of["zh"]["explanation"].str.contains(chinese).all()
    assert not of["en"]["explanation"].str.contains(chinese).any()
    explaining = [one["request"] for one in answers_in(study) if one["task"] == "explain"]
    systems = [request["messages"][0]["content"] for request in explaining]
    assert [sum(f'Language: "{tag}"' in text for text in systems) for tag in ("en", "zh")] == [3, 3]


def test_refusals_and_unreadable_answers_are_counted_as_the_server_counts_them(
    study: Path, safesail: Run
) -> None:
    with KnownTruthJudge("good", refusals=0.3, faults=Faults(truncated=0.1)) as judge:
        done = safesail(*asking(study, judge.url, "--scorer", "segments"))
        asked = judge.log.asked
        safesail(*asking(study, judge.url, "--scorer", "segments"))
        assert judge.log.asked == asked  # a refusal is an answer
    explain, segments = (judge.log.by_task[task] for task in ("explain", "segments"))
    assert min(explain["refused"], segments["refused"], segments["truncated"]) > 0
    rows = rows_of(study)
    assert rows["calls"].sum() == asked
    assert rows["prompt_tokens"].sum() == judge.log.prompt_tokens
    assert rows["completion_tokens"].sum() == judge.log.completion_tokens
    silent = rows[rows["explanation"].isna()]
    assert len(silent) == explain["refused"]
    assert set(silent["status"]) == {"refused"}
    assert silent["error"].str.startswith("not explained").all()
    # What could not be read is asked again, once.
    assert rows["prompts"].sum() == segments["answered"] + segments["refused"]
    refused = [one for one in answers_in(study) if one["task"] == "segments" and is_refusal(one)]
    assert len(refused) == segments["refused"]
    entries = [
        re.findall(r"^\d+ ", one["request"]["messages"][1]["content"], re.M) for one in refused
    ]
    assert rows["missing"].sum() == sum(map(len, entries))
    incomplete = rows[rows["missing"] > 0]
    assert incomplete["error"].str.contains(r"\d+ of \d+ windows not graded: refused").all()
    statuses = rows["status"].value_counts()
    assert all(f"{count} {status}" in done.stdout for status, count in statuses.items())


# A fallback may be the same model at an endpoint without a filter.
@pytest.mark.parametrize("fallback", ["other-model", MODEL])
def test_the_fallback_answers_what_is_refused(study: Path, safesail: Run, fallback: str) -> None:
    with KnownTruthJudge("good", refusals=0.3) as judge, KnownTruthJudge("good", seed=1) as second:
        options = ("--fallback-judge", fallback, "--fallback-url", second.url)
        done = safesail(*asking(study, judge.url, *options))
    rows = rows_of(study)
    assert set(rows["status"]) == {"scored"}
    assert set(rows["missing"]) == {0}
    assert second.log.asked == second.log.answered == judge.log.refused > 0
    assert rows["fallback_answers"].sum() == judge.log.refused
    assert f"; {judge.log.refused} answers by the fallback" in done.stdout
    assert set(rows["judge_model"]) == {MODEL}
    assert set(rows["explained_by"]) == {MODEL, fallback}
    by_task = judge.log.by_task["explain"]["refused"]
    assert (rows["explained_by"] == fallback).sum() == (by_task if fallback != MODEL else FEATURES)
    assert rows["calls"].sum() == judge.log.asked + second.log.asked
    assert rows["prompt_tokens"].sum() == judge.log.prompt_tokens + second.log.prompt_tokens
