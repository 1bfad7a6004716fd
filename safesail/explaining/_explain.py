"""Explain features and score the explanations: one row of the explanations table a feature."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal

from safesail.explaining._answers import ExplanationAnswer
from safesail.explaining._choice import Chooser
from safesail.explaining._design_effect import INDEPENDENT, PooledDesignEffect
from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._lexical import explain_lexically, simulate_lexically
from safesail.explaining._questions import explain_question
from safesail.explaining._rows import (
    Row,
    add_costs,
    add_lexical_scores,
    add_scores,
    ends_early,
    inherited,
    new_row,
    taken_over,
)
from safesail.explaining._scorers import SCORERS, Scored, score_items
from safesail.explaining._scores import window_scores
from safesail.explaining._scoring import ADAPTIVE, PILOT_PROMPTS, Scoring
from safesail.judging import Answer, Judge

T = TypeVar("T")

# A feature is findable when its explanation is of its own concept and discriminates so well.
FINDABLE_DISCRIMINATION = 0.75
# What these came of says whether a feature is findable; others were not asked, or in vain.
_TOLD = ("scored", "explained", "refused", "unparseable")


def explain_features(
    evidence: Sequence[FeatureEvidence],
    *,
    concepts: list[str],
    judge: Judge | None,
    language: str,
    scoring: Scoring | None = None,
    done: Mapping[int, Row] | None = None,
    on_result: Callable[[Row], None] | None = None,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> list[Row]:
    """Explain features and score the explanations on held-out windows.

    Without a judge the lexical baseline explains, and its rows say so.

    Args:
        evidence: features with their contexts.
        concepts: names of all concepts, which a judge may assign.
        judge: who explains and simulates.
        language: language of a judge's explanations, as a tag; the lexical ones have no language
            of their own and carry the tag all the same.
        scoring: how a judge scores.
        done: rows of features that were explained before, from which others may inherit, and a
            chooser learn.
        on_result: called with each row as soon as its feature has ended, so that it can be saved;
            whatever stops the run, the rows handed over until then are whole.
        progress: wraps an iterable with a label.

    Returns:
        One row per feature, in the order of `evidence`, with the columns of
        `tables.EXPLANATIONS`. Scores that were not computed are None; an undefined one is NaN.
        Every feature has a row; its `status` says what came of it:

        - `scored`; `error` then says how many windows are missing, if any are.
        - `explained`: there is an explanation, but a score is undefined because the simulation is
          constant. Its discrimination is 0.5.
        - `refused`, `unparseable`, `failed`: no explanation for that reason, or an explanation of
          which more than half of the windows could not be simulated, mostly for that reason.
        - `budget`: it was spent before the feature was explained and scored to the end; scores, if
          there are any, are of what had been graded.
        - `inherited`: a near-duplicate's explanation stands in the row, without scores.
        - `too_few_contexts`: fewer than five active or five silent windows in a split; nothing is
          asked. `dead` is passed on.

    Raises:
        JudgeError: the judge cannot be reached, or refuses every request.
        StorageError: an answer could not be stored.
    """
    report = on_result or (lambda row: None)
    if judge is None:
        rows = []
        for one in progress(evidence, "explaining"):
            row = _lexical_row(one, language)
            report(row)
            rows.append(row)
        return rows
    run = Run(judge, concepts, language, scoring or Scoring(), done or {}, report)
    ticks = iter(progress(range(len(evidence)), "explaining"))
    found = wait_for(run.all(evidence, lambda: next(ticks, None)))
    return [found[one.feature] for one in evidence]


def is_findable(row: Row) -> bool:
    """Whether an explanation is of a concept its feature was chosen for, and good."""
    own = {concept.partition("/")[0] for concept in row["concepts"]}
    assigned = {concept.partition("/")[0] for concept in row["judge_concepts"] or ()}
    discrimination = row["discrimination"]
    return bool(own & assigned) and (discrimination or 0.0) > FINDABLE_DISCRIMINATION


@dataclass
class Explained:
    """A feature whose explanation is there, before its scores are final."""

    evidence: FeatureEvidence
    row: Row
    answers: list[Answer] = field(default_factory=list)
    scored: Scored | None = None


class Run:
    """One run with a judge: the pilot, then the rest, then what inherits."""

    def __init__(
        self,
        judge: Judge,
        concepts: list[str],
        language: str,
        scoring: Scoring,
        done: Mapping[int, Row],
        report: Callable[[Row], None],
    ) -> None:
        self._judge = judge
        self._concepts = concepts
        self._language = language
        self._scoring = scoring
        self._report = report
        self._rows = dict(done)
        self._design_effect = scoring.design_effect
        self._tick: Callable[[], object] = lambda: None

    async def all(
        self, evidence: Sequence[FeatureEvidence], tick: Callable[[], object]
    ) -> dict[int, Row]:
        """Rows of all features; `tick` is called as each ends."""
        self._tick = tick
        by_feature = {one.feature: one for one in evidence}
        known = by_feature.keys() | self._rows.keys()
        duplicates = {f: of for f, of in self._scoring.duplicates.items() if of in known}
        asked, ended = [], set()
        for one in evidence:
            row = self._new_row(one)
            if ends_early(row, one):
                ended.add(one.feature)
                self._end(row)
            elif one.feature not in duplicates:
                asked.append(one)
        async with self._judge:
            asked = await self._pilot(asked)
            if self._scoring.chooser is None:
                await self._each(asked, self._finish)
            else:
                await self._in_rounds(asked, self._scoring.chooser)
        for feature, representative in duplicates.items():
            if feature in by_feature and feature not in ended:
                row = self._new_row(by_feature[feature])
                self._end(inherited(row, self._rows.get(representative), representative))
        return self._rows

    async def _pilot(self, asked: list[FeatureEvidence]) -> list[FeatureEvidence]:
        """Measure on some features how errors of one prompt go together; the others, left over."""
        count = self._scoring.pilots(len(asked))
        if not count:
            return asked
        pilot = asked[:count]
        explained: dict[int, Explained] = {}

        async def look(one: FeatureEvidence) -> None:
            explained[one.feature] = await self._explain(one)
            await self._score(explained[one.feature], prompts=PILOT_PROMPTS)

        await self._each(pilot, look)
        pooled = PooledDesignEffect()
        for number, one in enumerate(pilot):
            scored = explained[one.feature].scored
            pooled.add(number, scored.contribution if scored else None)
        self._design_effect = pooled.value()
        # The same answers, from the cache, with intervals that know of the shared errors.
        for one in pilot:
            await self._score(explained[one.feature], prompts=PILOT_PROMPTS)
        if any(a.status == "budget" for one in explained.values() for a in one.answers):
            # Not measured on all: the rows do not name it, so that the next run measures again.
            self._design_effect = None
        # Without a pause: a run that is killed has saved all pilots or none.
        for one in pilot:
            self.conclude(explained[one.feature])
        return asked[count:]

    async def _in_rounds(self, asked: Sequence[FeatureEvidence], chooser: Chooser) -> None:
        left = {one.feature: one for one in asked}
        while left:
            found = {
                feature: is_findable(row)
                for feature, row in self._rows.items()
                if row["status"] in _TOLD
            }
            chosen = [f for f in chooser.next_round(found) if f in left]
            # What the chooser does not know comes last.
            await self._each([left.pop(f) for f in chosen or list(left)], self._finish)

    async def _each(
        self,
        evidence: Sequence[FeatureEvidence],
        work: Callable[[FeatureEvidence], Coroutine[Any, Any, None]],
    ) -> None:
        """Do something with features, in order, a bounded number at once."""
        waiting = iter(evidence)

        async def take() -> None:
            # All workers take from one iterator.
            for one in waiting:
                await work(one)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._judge.concurrency, len(evidence))):
                    workers.create_task(take())
        except BaseExceptionGroup as failures:
            raise first_error(failures) from None

    async def _finish(self, evidence: FeatureEvidence) -> None:
        explained = await self._explain(evidence)
        await self._score(explained)
        self.conclude(explained)

    async def _explain(self, evidence: FeatureEvidence) -> Explained:
        row = self._new_row(evidence)
        if evidence.feature in self._scoring.given:
            return Explained(evidence, row)
        question = explain_question(
            evidence, concepts=self._concepts, language=self._language, seed=self._scoring.seed
        )
        answer = await self._judge.ask(question)
        row["prompt_version"] = question.version
        if isinstance(answer.value, ExplanationAnswer):
            row["explanation"] = answer.value.explanation.strip()
            row["judge_concepts"] = answer.value.concepts
            row["confidence"] = answer.value.confidence
            row["explained_by"] = answer.model
        else:
            row.update(status=answer.status, error=f"not explained: {answer.error}")
        return Explained(evidence, row, [answer])

    async def _score(self, explained: Explained, prompts: int | None = None) -> None:
        if explained.row["explanation"] is None:
            return
        judge, explanation = self._judge, explained.row["explanation"]
        seed, shared = self._scoring.seed, self._design_effect or INDEPENDENT
        if self._scoring.scorer == ADAPTIVE:
            scored = await score_items(
                judge,
                explanation,
                explained.evidence,
                seed=seed,
                design_effect=shared,
                precision=self._scoring.precision,
                prompts=prompts,
            )
        else:
            score = SCORERS[self._scoring.scorer]
            scored = await score(
                judge, explanation, explained.evidence, seed=seed, design_effect=shared
            )
        # Asked a second time, the cache answers all but what failed.
        again = explained.scored is not None
        explained.answers += [one for one in scored.answers if one.calls or not again]
        explained.scored = scored

    def conclude(self, explained: Explained) -> None:
        """Enter scores and costs into the row, which is final then."""
        row, scored = explained.row, explained.scored
        if scored is not None:
            versions = (row["prompt_version"], scored.prompt_version)
            row["prompt_version"] = " ".join(version for version in versions if version)
            add_scores(row, scored, self._design_effect)
        add_costs(row, explained.answers)
        left_out = next((one for one in explained.answers if one.status == "budget"), None)
        if left_out is not None and row["status"] != "budget":
            # What was paid for counts, and the next run asks the rest.
            row.update(status="budget", error=f"scored in part: {left_out.error}")
        self._end(row)

    def _new_row(self, evidence: FeatureEvidence) -> Row:
        row = new_row(evidence, self._language, explainer="judge")
        if evidence.feature in self._scoring.given:
            row.update(taken_over(self._scoring.given[evidence.feature]))
        row.update(
            judge_model=self._judge.model,
            judge_url=self._judge.url,
            scorer=self._scoring.scorer,
            precision=self._scoring.precision if self._scoring.scorer == ADAPTIVE else None,
        )
        return row

    def _end(self, row: Row) -> None:
        self._rows[row["feature"]] = row
        self._tick()
        self._report(row)


def first_error(error: BaseException) -> BaseException:
    """The error that ended a group of tasks, out of the groups that it comes wrapped in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where an event loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)

    async def wait() -> T:
        return await work

    with start_blocking_portal() as portal:  # leaving it by an error cancels the work
        return portal.call(wait)


def _lexical_row(evidence: FeatureEvidence, language: str) -> Row:
    row = new_row(evidence, language, explainer="lexical")
    if ends_early(row, evidence):
        return row
    row["explanation"] = explain_lexically(evidence.to_explain(), evidence.q999)
    contexts = evidence.to_score()
    simulated = simulate_lexically(row["explanation"], contexts)
    add_lexical_scores(row, window_scores(contexts, simulated))
    return row
