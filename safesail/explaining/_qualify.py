"""Measure a judge on features whose truth is known."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from safesail.explaining._answers import GradesAnswer
from safesail.explaining._design_effect import DesignEffect
from safesail.explaining._estimate import experience_of
from safesail.explaining._explain import Explained, Run, first_error, wait_for
from safesail.explaining._graded import Graded, graded_scores
from safesail.explaining._items import prompt_sizes
from safesail.explaining._qualification import PlantedFeature, Qualification, faults_of
from safesail.explaining._questions import LARGEST_GRADE, item_questions
from safesail.explaining._rows import Row
from safesail.explaining._scores import Interval
from safesail.explaining._scoring import Scoring
from safesail.explaining._shares import mean_interval, share_interval
from safesail.judging import Answer, Judge

_STATED_SIZE = 40
"""Items of the prompts that the design effect is stated for."""
_SILENT = ("silent", "hard_silent")


def qualify_judge(
    features: Sequence[PlantedFeature],
    *,
    judge: Judge,
    concepts: list[str],
    language: str,
    scoring: Scoring | None = None,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Qualification:
    """Measure a judge on features whose truth is known.

    It explains every feature and scores its explanations, as `explain_features` has it done. Then
    it grades a first prompt of items by a true and by a wrong description of each.

    Args:
        features: at least one.
        judge: who is asked.
        concepts: names of all concepts, which it may assign.
        language: of its explanations, as a tag.
        scoring: how these are scored; with short items.
        progress: wraps an iterable with a label.

    Raises:
        JudgeError: the judge cannot be reached, or refuses every request.
        StorageError: an answer could not be stored.
    """
    scoring = scoring or Scoring()
    ticks = iter(progress(range(3 * len(features)), "qualifying"))
    run = _OpenRun(judge, concepts, language, scoring)
    seen = wait_for(_measure(run, features, scoring.seed, lambda: next(ticks, None)))
    found = Qualification(
        url=judge.url,
        model=judge.model,
        language=language,
        features=[one.name for one in features],
        precision=scoring.precision,
        experience=experience_of(
            seen.rows,
            {one.evidence.feature: one.evidence for one in features},
            concepts=concepts,
            language=language,
            scoring=scoring,
        ),
        discrimination_right=mean_interval([one.discrimination() for one in seen.right]),
        discrimination_wrong=mean_interval([one.discrimination() for one in seen.wrong]),
        misses=_wrongly_graded(seen.right, "active"),
        false_alarms=_wrongly_graded(seen.right, *_SILENT),
        hard_false_alarms=_wrongly_graded(seen.right, "hard_silent"),
        **_own(seen.rows, scoring.precision, run.shared_features),
        **_counted([*run.answers, *(one.answer for one in (*seen.right, *seen.wrong))]),
    )
    return found.model_copy(update={"faults": faults_of(found)})


@dataclass(frozen=True)
class _Prompt:
    """One prompt of items, with its grades if it was answered."""

    answer: Answer
    graded: list[Graded]

    def count(self, kinds: Sequence[str]) -> tuple[int, int]:
        """Of the items of windows of some kinds, how many are graded wrongly, and how many are."""
        items = [one for one in self.graded if one.part.context.kind in kinds]
        wrong = sum((one.grades[0] > 0) != (one.part.truth[0] > 0) for one in items)
        return wrong, len(items)

    def discrimination(self) -> Interval:
        """The items' AUROC; NaN without an answer."""
        if not self.graded:
            return Interval(math.nan, math.nan, math.nan)
        return graded_scores(self.graded, largest=LARGEST_GRADE).discrimination


@dataclass(frozen=True)
class _Seen:
    """Rows of the judge's own explanations, and its grades by known ones."""

    rows: list[Row]
    right: list[_Prompt]
    wrong: list[_Prompt]


class _OpenRun(Run):
    """A run that keeps the answers."""

    def __init__(self, judge: Judge, concepts: list[str], language: str, scoring: Scoring) -> None:
        super().__init__(judge, concepts, language, scoring, {}, lambda row: None)
        self.judge = judge
        self.answers: list[Answer] = []

    @property
    def shared_features(self) -> int:
        """Features that the pooled design effect was measured on."""
        return self._design_effect.features if self._design_effect else 0

    def conclude(self, explained: Explained) -> None:
        """Keep what was answered, and conclude."""
        self.answers += explained.answers
        super().conclude(explained)


async def _measure(
    run: _OpenRun, features: Sequence[PlantedFeature], seed: int, tick: Callable[[], object]
) -> _Seen:
    rows = await run.all([one.evidence for one in features], tick)

    async def grade(one: PlantedFeature, explanation: str) -> _Prompt:
        sizes = prompt_sizes(len(one.evidence.to_score()))[:1]
        (asked,) = item_questions(explanation, one.evidence, sizes=sizes, seed=seed)
        answer = await run.judge.ask(asked.question)
        tick()
        if not isinstance(answer.value, GradesAnswer):
            return _Prompt(answer, [])
        grades = zip(asked.parts, answer.value.digits, strict=True)
        return _Prompt(answer, [Graded(part, of_part, 1) for part, of_part in grades])

    try:
        async with run.judge, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(grade(one, explanation))
                for one, explanation in (
                    *((one, one.right) for one in features),
                    *((one, one.wrong) for one in features),
                )
            ]
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None
    prompts = [task.result() for task in tasks]
    count = len(features)
    return _Seen([rows[one.evidence.feature] for one in features], prompts[:count], prompts[count:])


def _wrongly_graded(prompts: Sequence[_Prompt], *kinds: str) -> Interval:
    hits, counts = zip(*(one.count(kinds) for one in prompts), strict=True)
    return share_interval(hits, counts)


def _own(rows: Sequence[Row], precision: float, shared_features: int) -> dict[str, Any]:
    """What came of the judge's own explanations."""
    # Where a judge grades all alike the correlation is unknown, and the discrimination is chance.
    scored = [row for row in rows if row["discrimination"] is not None]
    halves = [(row["discrimination_high"] - row["discrimination_low"]) / 2 for row in scored]
    known = [row["shared_discrimination"] for row in rows]
    shared = next((value for value in known if value is not None), None)
    effect = None
    if shared is not None:
        pooled = DesignEffect(discrimination=shared)
        effect = pooled.of("discrimination", [_STATED_SIZE])
    return {
        "explained": len(scored),
        "discrimination_own": mean_interval(
            [
                Interval(*(row[f"discrimination{end}"] for end in ("", "_low", "_high")))
                for row in scored
            ]
        ),
        "precise_share": _mean([half <= precision for half in halves]),
        "tokens_per_feature": _mean(
            [row["prompt_tokens"] + row["completion_tokens"] for row in scored]
        ),
        "shared": shared,
        "shared_features": shared_features,
        "design_effect": effect,
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _counted(answers: Sequence[Answer]) -> dict[str, Any]:
    """What became of all questions, and what that took."""
    statuses = Counter(answer.status for answer in answers)
    costs = [answer.cost_usd for answer in answers if answer.status != "budget"]
    known = [cost for cost in costs if cost is not None]
    taken = ("calls", "prompt_tokens", "completion_tokens", "reasoning_tokens")
    return {
        "asked": len(answers),
        **{name: statuses[name] for name in ("answered", "refused", "unparseable", "failed")},
        "budget": statuses["budget"],
        "fallback_answers": sum(answer.by_fallback for answer in answers),
        "cost_usd": sum(known) if len(known) == len(costs) else None,
        **{name: sum(getattr(answer, name) for answer in answers) for name in taken},
    }
