"""Scorers before a judge that reads the prompts and knows which words matter."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from explaining_windows import planted_feature

from safesail.explaining._answers import GradesAnswer, SimulationAnswer
from safesail.explaining._design_effect import DesignEffect
from safesail.explaining._marking import marked_windows
from safesail.explaining._mixture import MISPLACED
from safesail.explaining._questions import explain_question, fuzzing_questions
from safesail.explaining._scorers import SCORERS, Scored, score_items, score_segments
from safesail.judging import Answer, Question

# What the planted feature fires at; `murderous` leaves it silent.
_ACTIVE = re.compile(r"murder(?!ous)|stabbed")
_MARKED = re.compile(r"⟪([^⟪⟫]+)⟫")


def knows(texts: list[str]) -> list[int]:
    """Grades of a judge that makes no mistake, as far as the text shows what matters."""
    return [3 if _ACTIVE.search(text) else 0 for text in texts]


def knows_nothing() -> Callable[[list[str]], list[int]]:
    rng = random.Random(0)
    return lambda texts: [rng.choice((0, 0, 1, 3)) for _ in texts]


def slips() -> Callable[[list[str]], list[int]]:
    """Wrong about one text in seven."""
    rng = random.Random(0)
    return lambda texts: [3 - g if rng.random() < 1 / 7 else g for g in knows(texts)]


@dataclass
class FakeJudge:
    """Answers typed questions without any endpoint.

    Attributes:
        wits: grades of texts, 0 to 3.
        faults: what becomes of the answers, in order, instead; None answers.
        questions: what was asked.
    """

    wits: Callable[[list[str]], list[int]] = knows
    faults: list[str | None] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    async def ask(self, question: Question, *, replicate: int = 0) -> Answer:
        self.questions.append(question)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            return Answer(None, fault, "scripted", 0, 0, 0, None, 1, False, "fake")
        return Answer(self._value(question), "answered", None, 100, 10, 0, None, 1, False, "fake")

    def _value(self, question: Question) -> GradesAnswer | SimulationAnswer:
        lines = question.messages[-1]["content"].splitlines()[1:]
        if question.task == "simulate":
            windows = [json.loads(line) for line in lines if line]
            answer = [
                {
                    "window": window["window"],
                    "activations": [
                        min(10, 3 * self.wits([f"{before}{token}"])[0])
                        for before, token in zip(
                            ["", *window["tokens"]], window["tokens"], strict=False
                        )
                    ],
                }
                for window in windows
            ]
            return SimulationAnswer.model_validate(
                {"windows": answer}, context=question.validation_context
            )
        largest = question.validation_context["largest"]
        entries = []
        for line in lines:
            number, _, text = line.partition(" ")
            parts = json.loads(text)
            if question.task in ("items", "fuzzing"):
                parts = "".join(_MARKED.findall(parts))
            texts = parts if isinstance(parts, list) else [parts]
            digits = "".join(str(min(largest, grade)) for grade in self.wits(texts))
            entries.append(f"{number}:{digits}")
        return GradesAnswer.model_validate(
            {"grades": " ".join(entries)}, context=question.validation_context
        )


def score(name: str, judge: FakeJudge, **options: object) -> Scored:
    options.setdefault("seed", 0)
    scorer = {**SCORERS}[name]
    return asyncio.run(scorer(judge, "murder and stabbing", planted_feature(), **options))


@pytest.mark.parametrize(
    ("name", "prompts", "per_prompt"),
    [("tokens", 10, 10), ("segments", 5, 20), ("detection", 20, 5), ("fuzzing", 20, 5)],
)
def test_every_window_is_asked_about_once(name: str, prompts: int, per_prompt: int) -> None:
    judge = FakeJudge()
    scored = score(name, judge)
    assert len(judge.questions) == scored.prompts == len(scored.answers) == prompts
    assert all(len(q.validation_context["counts"]) == per_prompt for q in judge.questions)
    assert (scored.observations, scored.missing, scored.looks) == (100, 0, 1)
    assert (scored.status, scored.error) == ("scored", None)
    assert f"{per_prompt} windows a prompt" in scored.item_format or (
        f"{per_prompt} a prompt" in scored.item_format
    )
    assert scored.prompt_version == {"tokens": "simulate/1"}.get(name, f"{name}/1")


@pytest.mark.parametrize("name", SCORERS)
def test_a_judge_that_knows_scores_high_and_one_that_does_not_at_chance(name: str) -> None:
    good, bad = score(name, FakeJudge()), score(name, FakeJudge(knows_nothing()))
    # An item may begin in the middle of a word, which is then not seen.
    assert good.discrimination.value > 0.85
    assert good.discrimination.high - good.discrimination.low < 0.2
    assert good.correlation.value > 0.4
    assert bad.discrimination.low < 0.5 < bad.discrimination.high
    assert bad.correlation.low < 0 < bad.correlation.high
    assert good.active_share == pytest.approx(0.25 if name == "fuzzing" else 0.5)


def test_items_stop_at_the_precision_and_earlier_prompts_stay_the_same() -> None:
    soon, late = FakeJudge(), FakeJudge()
    first = score("items", soon)
    last = score("items", late, precision=0.001)
    assert (first.looks, first.prompts, first.observations) == (1, 1, 56)
    assert (last.looks, last.prompts, last.observations) == (2, 2, 96)
    assert (first.discrimination.high - first.discrimination.low) / 2 <= 0.10
    assert soon.questions[0].messages == late.questions[0].messages
    again = FakeJudge()
    score("items", again, precision=0.001)
    assert [q.messages for q in again.questions] == [q.messages for q in late.questions]


def test_the_pilot_asks_three_equal_prompts_and_looks_once() -> None:
    judge = FakeJudge(slips())
    scored = score("items", judge, prompts=3)
    assert [len(q.validation_context["counts"]) for q in judge.questions] == [33, 33, 33]
    assert (scored.looks, scored.prompts) == (1, 3)
    assert scored.contribution is not None


def test_the_design_effect_reaches_the_interval() -> None:
    plain = score("items", FakeJudge(slips()), prompts=2)
    shared = score(
        "items", FakeJudge(slips()), prompts=2, design_effect=DesignEffect(0.05, 0.05, 20)
    )
    assert shared.design_effect == pytest.approx(1 + 0.05 * 39)
    assert shared.discrimination.low < plain.discrimination.low


def test_a_fault_costs_its_items_only() -> None:
    judge = FakeJudge(faults=["refused"])
    scored = score("items", judge, precision=0.2)
    assert (scored.looks, scored.prompts) == (1, 2)
    assert (scored.observations, scored.missing) == (40, 56)
    judge = FakeJudge(faults=[None, "failed", None])
    scored = score("segments", judge)
    assert (scored.status, scored.observations, scored.missing) == ("scored", 80, 20)
    assert scored.error == "20 of 100 windows not graded: failed, scripted"
    assert scored.discrimination.value > 0.9


@pytest.mark.parametrize("fault", ["refused", "unparseable", "failed"])
def test_more_than_half_missing_is_no_score(fault: str) -> None:
    scored = score("segments", FakeJudge(faults=[fault] * 3))
    assert (scored.status, scored.observations, scored.missing) == (fault, 40, 60)
    assert np.isnan(scored.discrimination.value)
    assert scored.error == f"60 of 100 windows not graded: {fault}, scripted"
    assert len(scored.answers) == 5


def test_a_spent_budget_ends_the_asking() -> None:
    judge = FakeJudge(faults=["budget"])
    scored = score("items", judge)
    assert (len(judge.questions), scored.status, scored.observations) == (1, "budget", 0)
    # What was paid for before counts.
    scored = score("items", FakeJudge(faults=[None, "budget"]), precision=0.001)
    assert (scored.status, scored.observations, scored.missing) == ("scored", 56, 40)


def test_a_constant_judge_is_explained_but_not_scored() -> None:
    scored = score("items", FakeJudge(lambda texts: [0] * len(texts)))
    assert scored.status == "explained"
    assert scored.discrimination.value == pytest.approx(0.5)
    assert scored.error == (
        "correlation undefined: the grades or the true activations are constant"
    )


def test_windows_a_prompt_can_be_chosen_for_segments() -> None:
    judge = FakeJudge()
    evidence = planted_feature()
    scored = asyncio.run(score_segments(judge, "murder", evidence, seed=0, windows_per_prompt=50))
    assert (scored.prompts, scored.observations) == (2, 100)


def test_few_windows_are_one_prompt() -> None:
    evidence = planted_feature()
    score_split = [one for one in evidence.contexts if one.split == "score"]
    few = [one for one in score_split if one.kind == "active"][:6]
    few += [one for one in score_split if one.kind == "silent"][:6]
    judge = FakeJudge()
    scored = asyncio.run(score_items(judge, "murder", replace(evidence, contexts=few), seed=0))
    assert (scored.prompts, scored.observations) == (1, 12)


def test_prompts_hold_no_answers() -> None:
    for name in SCORERS:
        judge = FakeJudge()
        score(name, judge)
        for question in judge.questions:
            content = question.messages[-1]["content"]
            assert not re.search(r"⟪\d+⟫|silent|active", content)


def test_fuzzing_marks_right_and_wrong_words_alike() -> None:
    evidence = planted_feature()
    marked = marked_windows(evidence.to_score(), evidence.name, seed=0)
    assert len(marked) == 100
    kinds = [one.stratum[0] for one in marked]
    assert (kinds.count("active"), kinds.count(MISPLACED)) == (25, 25)
    counts: dict[bool, list[int]] = {True: [], False: []}
    for one in marked:
        words = _MARKED.findall(one.text)
        right = one.stratum[0] == "active"
        assert bool(_ACTIVE.search(" ".join(words))) == right
        assert (one.truth >= one.context.peak / 2 > 0) == right
        counts[right].append(len(words))
    assert np.mean(counts[True]) == pytest.approx(np.mean(counts[False]), abs=0.2)
    first, second = (fuzzing_questions("x", evidence, seed=0) for _ in range(2))
    assert [one.question.messages for one in first] == [one.question.messages for one in second]


def test_the_explainer_sees_strong_spread_and_silent_windows() -> None:
    evidence = planted_feature()
    question = explain_question(evidence, concepts=["violence"], language="en", seed=0)
    content = question.messages[1]["content"]
    active, silent = content.split("Silent windows:\n")
    shown = [json.loads(line) for line in active.splitlines() if line.startswith('"')]
    assert len(shown) == 12
    peaks = [max(map(int, re.findall(r"⟪(\d+)⟫", text))) for text in shown]
    assert peaks[:4] == [10] * 4
    assert len(set(peaks)) >= 8
    plain = [json.loads(line) for line in silent.splitlines()]
    assert len(plain) == 4
    assert sum("murderous" in text for text in plain) == 2
    texts = {"".join(c.tokens) for c in evidence.contexts if c.split == "explain"}
    assert {re.sub(r"⟪\d+⟫", "", text) for text in shown} <= texts
