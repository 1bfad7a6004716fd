"""Runs with a judge: the pilot, adaptive stopping, what inherits, budgets, a fallback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from explaining_windows import planted_feature
from judge_server import JudgeServer, default_answer

from safesail.explaining import (
    Chooser,
    DesignEffect,
    FeatureEvidence,
    Prospect,
    Scoring,
    estimate,
    experience_of,
    explain_features,
    is_findable,
)
from safesail.judging import Budget, Judge

CONCEPTS = ["violence", "fraud"]
KNOWN = DesignEffect(correlation=0.02, discrimination=0.02, features=20)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "judge.sqlite"


@pytest.fixture
def judge(server: JudgeServer, cache: Path) -> Judge:
    return Judge(server.url, "test-judge", cache=cache, max_retries=1)


def features(count: int) -> list[FeatureEvidence]:
    return [replace(planted_feature(seed), feature=seed) for seed in range(count)]


def run(judge: Judge, evidence: list[FeatureEvidence], scoring: Scoring, **options: Any) -> Any:
    return explain_features(
        evidence, concepts=CONCEPTS, judge=judge, language="en", scoring=scoring, **options
    )


def test_the_first_features_say_how_answers_of_a_prompt_go_together(judge: Judge) -> None:
    rows = run(judge, features(12), Scoring())
    assert {row["status"] for row in rows} == {"scored"}
    assert {row["scorer"] for row in rows} == {"items"}
    # Five pilots with three prompts of equal size; a good judge is precise at once otherwise.
    assert [row["prompts"] for row in rows] == [3] * 5 + [1] * 7
    assert len({(row["shared_discrimination"], row["shared_correlation"]) for row in rows}) == 1
    assert rows[0]["shared_discrimination"] >= 0
    assert all(row["design_effect"] >= 1 for row in rows)
    for row in rows:
        half = (row["discrimination_high"] - row["discrimination_low"]) / 2
        assert half <= row["precision"] == 0.10
        assert row["discrimination_low"] <= row["discrimination"] <= row["discrimination_high"]
        assert row["prompt_version"] == "explain/2 items/1"


def test_a_pilots_requests_are_counted_once_and_a_second_run_sends_none(
    server: JudgeServer, judge: Judge
) -> None:
    rows = run(judge, features(6), Scoring())
    assert sum(row["calls"] for row in rows) == len(server.requests) == 5 * 4 + 2
    again = run(judge, features(6), Scoring())
    assert len(server.requests) == 22
    unlike = ("calls", "created_at")
    assert [{k: v for k, v in row.items() if k not in unlike} for row in again] == [
        {k: v for k, v in row.items() if k not in unlike} for row in rows
    ]


def test_what_is_known_of_the_judge_needs_no_pilot(judge: Judge) -> None:
    rows = run(judge, features(3), Scoring(design_effect=KNOWN))
    assert [row["prompts"] for row in rows] == [1, 1, 1]
    assert {row["shared_discrimination"] for row in rows} == {0.02}


def test_a_finer_precision_asks_more(server: JudgeServer, judge: Judge) -> None:
    def answer(body: dict) -> str:
        answer = json.loads(default_answer(body))
        if "grades" in answer:  # every fourth entry is wrong
            entries = [entry.split(":") for entry in answer["grades"].split()]
            wrong = [f"{n}:{3 - int(g) if int(n) % 4 == 0 else g}" for n, g in entries]
            answer["grades"] = " ".join(wrong)
        return json.dumps(answer)

    server.answer = answer
    coarse, fine = (
        run(judge, features(1), Scoring(precision=precision, design_effect=KNOWN))[0]
        for precision in (0.2, 0.05)
    )
    assert coarse["prompts"] == coarse["looks"] == 1
    assert fine["prompts"] == fine["looks"] == 2
    assert fine["observations"] > coarse["observations"]


def test_near_duplicates_inherit_and_are_not_asked(server: JudgeServer, judge: Judge) -> None:
    scoring = Scoring(design_effect=KNOWN, duplicates={1: 0, 2: 9})
    first, second, third = run(judge, features(3), scoring)
    assert (second["status"], second["inherited_from"]) == ("inherited", 0)
    assert second["explanation"] == first["explanation"]
    assert second["judge_concepts"] == first["judge_concepts"]
    assert (second["discrimination"], second["correlation"], second["calls"]) == (None, None, 0)
    # What it would inherit from is not there: it is explained itself.
    assert third["status"] == "scored"
    assert len(server.requests) == 4


def test_near_duplicates_inherit_from_an_earlier_run_and_its_failures_are_theirs(
    server: JudgeServer, judge: Judge
) -> None:
    (first,) = run(judge, features(1), Scoring(design_effect=KNOWN))
    scoring = Scoring(design_effect=KNOWN, duplicates={1: 0})
    (second,) = run(judge, features(2)[1:], scoring, done={0: first})
    assert (second["status"], second["explanation"]) == ("inherited", first["explanation"])
    failed = {**first, "status": "refused", "explanation": None, "error": "no"}
    (second,) = run(judge, features(2)[1:], scoring, done={0: failed})
    assert (second["status"], second["explanation"]) == ("refused", None)
    assert second["error"] == "a near-duplicate of feature 0: no"


def test_a_spent_budget_ends_the_run_cleanly(server: JudgeServer, cache: Path) -> None:
    evidence, scoring = features(8), Scoring(design_effect=KNOWN)
    free = run(Judge(server.url, "other", cache=cache), evidence[:1], scoring)
    each = free[0]["prompt_tokens"] + free[0]["completion_tokens"]
    budget = Budget(3.5 * each, "tokens")
    judge = Judge(server.url, "test-judge", cache=cache, budget=budget, concurrency=1)
    rows = run(judge, evidence, scoring)
    statuses = [row["status"] for row in rows]
    assert statuses[:3] == ["scored"] * 3
    assert set(statuses[4:]) == {"budget"}
    assert all("the budget" in row["error"] for row in rows if row["status"] == "budget")
    assert budget.spent <= 1.05 * budget.amount
    rows = run(Judge(server.url, "test-judge", cache=cache), evidence, scoring)
    assert {row["status"] for row in rows} == {"scored"}
    assert [row["calls"] for row in rows[:3]] == [0, 0, 0]


def test_rounds_follow_the_chooser(server: JudgeServer, judge: Judge) -> None:
    prospects = [
        Prospect(one.feature, {"log_q_value": -5.0, "separation": s}, cost=1_000.0)
        for one, s in zip(features(6), (0.1, 0.9, 0.2, 0.8, 0.3, 0.7), strict=True)
    ]
    ended: list[int] = []
    narrow = replace_concurrency(judge)
    scoring = Scoring(design_effect=KNOWN, chooser=Chooser(prospects, seed=0, round_size=2))
    rows = run(narrow, features(6), scoring, on_result=lambda row: ended.append(row["feature"]))
    assert [row["feature"] for row in rows] == list(range(6))
    assert ended == [1, 3, 5, 4, 2, 0]


def replace_concurrency(judge: Judge) -> Judge:
    judge.concurrency = 1
    return judge


def test_the_fallbacks_answers_are_counted(server: JudgeServer, cache: Path) -> None:
    def answer(body: dict) -> str:
        if body["model"] == "prude":
            return "I'm sorry, but I cannot help with that."
        return default_answer(body)

    server.answer = answer
    fallback = Judge(server.url, "frank", cache=cache)
    judge = Judge(server.url, "prude", cache=cache, fallback=fallback)
    (row,) = run(judge, features(1), Scoring(design_effect=KNOWN))
    assert (row["status"], row["judge_model"], row["explained_by"]) == ("scored", "prude", "frank")
    assert row["fallback_answers"] == 2
    assert row["calls"] == 4


@pytest.mark.parametrize(
    ("concepts", "discrimination", "findable"),
    [
        (["violence/insult"], 0.8, True),
        (["violence"], 0.75, False),
        (["fraud"], 0.9, False),
        (None, 0.9, False),
        (["violence"], None, False),
        (["violence"], float("nan"), False),
    ],
)
def test_findable_is_of_its_own_concept_and_good(
    concepts: list[str] | None, discrimination: float | None, findable: bool
) -> None:
    row = {
        "concepts": ["violence", "drugs"],
        "judge_concepts": concepts,
        "discrimination": discrimination,
    }
    assert is_findable(row) is findable


def test_a_dry_run_knows_from_a_few_what_the_rest_will_take(judge: Judge) -> None:
    evidence = features(20)
    few = run(judge, evidence[:5], Scoring())
    scoring = Scoring(design_effect=KNOWN)
    common: dict[str, Any] = {"concepts": CONCEPTS, "language": "en", "scoring": scoring}
    experience = experience_of(few, {one.feature: one for one in evidence}, **common)
    assert experience is not None
    forecast = estimate(evidence[5:], experience=experience, **common)
    rows = run(judge, evidence[5:], scoring)
    taken = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    assert forecast.prompt_tokens + forecast.completion_tokens == pytest.approx(taken, rel=0.15)
    assert forecast.least_tokens <= taken * 1.1
    assert forecast.most_tokens >= taken
    assert experience_of(few[:4], {one.feature: one for one in evidence}, **common) is None
