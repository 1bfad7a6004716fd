"""Explain features and score the explanations: one row of the explanation table a feature."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from anyio.from_thread import start_blocking_portal

from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._judged import (
    ITEM_FORMAT,
    ExplanationAnswer,
    commonest_fault,
    explain_question,
    simulate,
)
from safesail.explaining._lexical import explain_lexically, simulate_lexically
from safesail.explaining._scores import WindowScores, window_scores
from safesail.judging import Answer, Judge
from safesail.tables import EXPLANATIONS

Row = dict[str, Any]

_LEXICAL_FORMAT = "every token, 0 to 10, from words alone"


def explain_features(
    evidence: Iterable[FeatureEvidence],
    *,
    concepts: list[str],
    judge: Judge | None,
    language: str,
    on_result: Callable[[Row], None] | None = None,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
    seed: int = 0,
) -> list[Row]:
    """Explain features and score the explanations on held-out windows.

    Without a judge the lexical baseline explains, and its rows say so.

    Args:
        evidence: features with their contexts; read one by one.
        concepts: names of all concepts, which a judge may assign.
        judge: who explains and simulates.
        language: language of a judge's explanations, as a tag; the lexical ones have no language
            of their own and carry the tag all the same.
        on_result: called with each row as soon as its feature has ended, so that it can be saved;
            whatever stops the run, the rows handed over until then are whole.
        progress: wraps an iterable with a label.
        seed: of the choice and the order of windows in prompts.

    Returns:
        One row per feature, in the order of `evidence`, with the columns of
        `tables.EXPLANATIONS` and `judge_concepts`, the concepts that the judge assigned. Scores
        that were not computed are None; an undefined one is NaN. Every feature has a row; its
        `status` says what came of it:

        - `scored`; `error` then says how many windows are missing, if any are.
        - `explained`: there is an explanation, but a score is undefined because the simulation is
          constant. Its discrimination is 0.5.
        - `refused`, `unparseable`, `failed`: no explanation for that reason, or an explanation of
          which more than half of the windows could not be simulated, mostly for that reason.
        - `too_few_contexts`: fewer than five active or five silent windows in a split; nothing is
          asked. `dead` is passed on.

    Raises:
        JudgeError: the judge cannot be reached, or refuses every request.
        StorageError: an answer could not be stored.
    """
    report = on_result or (lambda row: None)
    shown = progress(evidence, "explaining")
    if judge is None:
        rows = []
        for one in shown:
            row = _lexical_row(one, language)
            report(row)
            rows.append(row)
        return rows
    return _wait_for(_explain_all(iter(shown), concepts, judge, language, report, seed))


async def _explain_all(
    evidence: Iterator[FeatureEvidence],
    concepts: list[str],
    judge: Judge,
    language: str,
    report: Callable[[Row], None],
    seed: int,
) -> list[Row]:
    rows: dict[int, Row] = {}
    numbered = enumerate(evidence)

    async def work() -> None:
        # All workers take from one iterator: features start in order, a bounded number at once.
        for number, one in numbered:
            row = await _judged_row(one, concepts, judge, language, seed)
            rows[number] = row
            report(row)

    async with judge:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(judge.concurrency):
                    workers.create_task(work())
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
    return [rows[number] for number in sorted(rows)]


def _first(error: BaseException) -> BaseException:
    """The error that ended a group of tasks, out of the groups that it comes wrapped in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _wait_for(work: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    """Run a coroutine to its end, also where an event loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)

    async def wait() -> list[Row]:
        return await work

    with start_blocking_portal() as portal:  # leaving it by an error cancels the work
        return portal.call(wait)


def _lexical_row(evidence: FeatureEvidence, language: str) -> Row:
    row = _new_row(evidence, language, explainer="lexical")
    if _ends_early(row, evidence):
        return row
    row["explanation"] = explain_lexically(evidence.to_explain(), evidence.q999)
    contexts = evidence.to_score()
    row["item_format"] = _LEXICAL_FORMAT
    _add_scores(row, window_scores(contexts, simulate_lexically(row["explanation"], contexts)))
    return row


async def _judged_row(
    evidence: FeatureEvidence, concepts: list[str], judge: Judge, language: str, seed: int
) -> Row:
    row = _new_row(evidence, language, explainer="judge")
    row["judge_model"], row["judge_url"] = judge.model, judge.url
    if _ends_early(row, evidence):
        return row
    question = explain_question(evidence, concepts=concepts, language=language, seed=seed)
    answer = await judge.ask(question)
    row["prompt_version"] = question.version
    _add_costs(row, [answer])
    if not isinstance(answer.value, ExplanationAnswer):
        row.update(status=answer.status, error=f"not explained: {answer.error}")
        return row
    row["explanation"] = answer.value.explanation.strip()
    row["judge_concepts"] = answer.value.concepts
    row["confidence"] = answer.value.confidence
    simulation = await simulate(judge, row["explanation"], evidence, seed=seed)
    row["prompt_version"] = f"{question.version} {simulation.version}"
    row["item_format"] = ITEM_FORMAT
    _add_costs(row, simulation.answers)
    wanted, missing = len(evidence.to_score()), simulation.missing
    fault = commonest_fault(simulation.answers)
    if fault is not None:
        row["error"] = f"{missing} of {wanted} windows not simulated: {fault.status}, {fault.error}"
    if fault is not None and missing > wanted / 2:
        row.update(status=fault.status, observations=wanted - missing)
        return row
    _add_scores(row, window_scores(simulation.contexts, simulation.activations))
    return row


def _new_row(evidence: FeatureEvidence, language: str, *, explainer: str) -> Row:
    row: Row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
    row.update(
        sae=evidence.sae,
        layer=evidence.layer,
        feature=evidence.feature,
        language=language,
        concepts=evidence.concepts,
        explainer=explainer,
        judge_concepts=None,
        observations=0,
        calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        created_at=datetime.now(UTC).replace(microsecond=0),
    )
    return row


def _ends_early(row: Row, evidence: FeatureEvidence) -> bool:
    """Set the status of a feature that there is nothing to ask about."""
    if evidence.status == "dead":
        row.update(status="dead", error="the feature is silent on the whole corpus")
        return True
    shortage = evidence.shortage()
    if evidence.status == "too_few_contexts" or shortage is not None:
        row.update(status="too_few_contexts", error=shortage or "too few contexts collected")
        return True
    return False


def _add_costs(row: Row, answers: Iterable[Answer]) -> None:
    for answer in answers:
        row["calls"] += answer.calls
        row["prompt_tokens"] += answer.prompt_tokens
        row["completion_tokens"] += answer.completion_tokens


def _add_scores(row: Row, scores: WindowScores) -> None:
    for name in ("correlation", "discrimination"):
        interval = getattr(scores, name)
        row[name] = interval.value
        row[f"{name}_low"], row[f"{name}_high"] = interval.low, interval.high
    row["observations"] = scores.observations
    row["mixture"] = scores.mixture
    faults = [row["error"]] if row["error"] else []
    if math.isnan(scores.correlation.value):
        faults.append("correlation undefined: the simulated or the true activations are constant")
    if math.isnan(scores.discrimination.value):
        faults.append("discrimination undefined: active or silent windows are missing altogether")
    undefined = math.isnan(scores.correlation.value) or math.isnan(scores.discrimination.value)
    row["status"] = "explained" if undefined else "scored"
    row["error"] = "; ".join(faults) or None
