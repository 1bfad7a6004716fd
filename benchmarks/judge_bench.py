"""One quality of the known-truth judge on one pool, for `benchmarks/judge_cost.py`.

What explaining and scoring takes, whether the intervals hold the truth, and whether a dry run
forecasts the bill.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import judge_pool
import numpy as np
from judge_truth import true_discrimination

from safesail.explaining import (
    DesignEffect,
    FeatureEvidence,
    Scoring,
    estimate,
    experience_of,
    explain_features,
)
from safesail.explaining._scorers import SCORERS, Scored
from safesail.judging import Answer, Judge, Question
from safesail.lab.judge import MODEL, QUALITIES

PRECISION = 0.10
SEEDS = 4
# Items of the first prompt: the design effect is stated for these.
_ITEMS = 56
# Half-widths that every and no interval has: a run that ends at the first and at the last look.
_ANY, _NONE = 1.0, 0.0

Row = dict[str, Any]


class Bench:
    """One judge on features drawn from a pool.

    Attributes:
        pool: all features.
        full: those drawn, with all windows.
        usual: the same with as many windows as a study keeps by default.
        quality: of the judge.
    """

    def __init__(
        self, pool: judge_pool.Pool, features: int, quality: str, url: str, cache: Path
    ) -> None:
        drawn = random.Random(0).sample(pool.evidence, min(features, len(pool.evidence)))
        self.pool = pool
        self.full = drawn
        self.usual = [judge_pool.thinned(one) for one in drawn]
        self.quality = QUALITIES[quality]
        self._url, self._cache = url, cache

    def run(
        self, evidence: Sequence[FeatureEvidence], scoring: Scoring, **options: Any
    ) -> list[Row]:
        """Rows of the explanations table."""
        return explain_features(
            evidence,
            concepts=self.pool.concepts,
            judge=self._judge(),
            language="en",
            scoring=scoring,
            **options,
        )

    def score(
        self,
        scorer: str,
        rows: Sequence[Row],
        evidence: Sequence[FeatureEvidence],
        **options: Any,
    ) -> list[Scored]:
        """The explanations of rows, scored another way."""

        async def all_of_them() -> list[Scored]:
            async with self._judge() as judge, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        SCORERS[scorer](judge, row["explanation"], one, seed=0, **options)
                    )
                    for row, one in zip(rows, evidence, strict=True)
                ]
            return [task.result() for task in tasks]

        return asyncio.run(all_of_them())

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in order."""

        async def all_of_them() -> list[Answer]:
            async with self._judge() as judge, asyncio.TaskGroup() as group:
                tasks = [group.create_task(judge.ask(question)) for question in questions]
            return [task.result() for task in tasks]

        return asyncio.run(all_of_them())

    def cost(self, rows: list[Row]) -> dict[str, Any]:
        """What a feature takes at precision 0.10, and what comes of it."""
        pilots = Scoring().pilots(len(rows))
        scored = [row for row in rows if is_scored(row)]
        after = [row for row in scored if row["prompts"] != 3]
        shared = shared_by(rows)
        return {
            "features": len(rows),
            "scored": len(scored),
            "pilots": pilots,
            "median_tokens_per_feature": statistics.median(map(tokens, rows)),
            "mean_tokens_per_feature": statistics.fmean(map(tokens, rows)),
            "median_discrimination": statistics.median(row["discrimination"] for row in scored),
            "median_half_width": statistics.median(map(half_width, scored)),
            "reached_precision": statistics.fmean(half_width(row) <= PRECISION for row in scored),
            "one_prompt": statistics.fmean(row["prompts"] == 1 for row in after),
            "design_effect": shared.of("discrimination", [_ITEMS]),
        }

    def dry_run(self, rows: list[Row]) -> dict[str, Any]:
        """A forecast, after the pilot, of what the rest takes, against what it took."""
        scoring = Scoring(design_effect=shared_by(rows))
        pilots = Scoring().pilots(len(rows))
        common: dict[str, Any] = {
            "concepts": self.pool.concepts,
            "language": "en",
            "scoring": scoring,
        }
        by_feature = {one.feature: one for one in self.usual}
        experience = experience_of(rows[:pilots], by_feature, **common)
        used = sum(map(tokens, rows[pilots:]))
        found = {}
        for name, known in (("dry_run_error", experience), ("dry_run_error_unknown_judge", None)):
            forecast = estimate(self.usual[pilots:], experience=known, **common)
            found[name] = (forecast.prompt_tokens + forecast.completion_tokens) / used - 1
        return found

    def coverage(self) -> dict[str, Any]:
        """Whether intervals hold the truth, over features and draws of their windows.

        Windows of the score split are drawn anew, with replacement, from all that a feature has:
        these are the population whose discrimination is the truth. Each draw has pilots of its own.
        """
        truths: dict[tuple[int, str], float] = {}
        full = {one.feature: one for one in self.full}
        stopped, adversarial, effects = [], [], []
        for seed in range(SEEDS):
            evidence = [
                judge_pool.redrawn(usual, one, seed)
                for usual, one in zip(self.usual, self.full, strict=True)
            ]
            random.Random(seed).shuffle(evidence)
            rows = self.run(evidence, Scoring())
            shared = shared_by(rows)
            effects.append(shared.of("discrimination", [_ITEMS]))
            pilots = Scoring().pilots(len(rows))
            looks = [
                self.run(evidence[pilots:], Scoring(precision=precision, design_effect=shared))
                for precision in (_ANY, _NONE)
            ]
            if any(row["looks"] > len(looks) for row in looks[-1]):
                raise AssertionError("a look is not looked at")
            for number, row in enumerate(rows):
                if row["discrimination"] is None:
                    continue
                key = row["feature"], row["explanation"]
                if key not in truths:
                    truths[key] = true_discrimination(key[1], full[key[0]], self.quality)
                seen = [row] if number < pilots else [run[number - pilots] for run in looks]
                stopped.append(holds(row, truths[key]))
                adversarial.append(all(holds(one, truths[key]) for one in seen))
        return {
            "coverage_95": float(np.mean(stopped)),
            "coverage_95_adversarial": float(np.mean(adversarial)),
            "coverage_runs": len(stopped),
            "coverage_design_effects": [round(effect, 2) for effect in effects],
            "median_true_discrimination": statistics.median(truths.values()),
        }

    def _judge(self) -> Judge:
        return Judge(self._url, MODEL, cache=self._cache, concurrency=16)


def tokens(row: Row) -> int:
    """Of prompts and answers."""
    return int(row["prompt_tokens"] + row["completion_tokens"])


def is_scored(row: Row) -> bool:
    """Whether both scores are there."""
    return bool(row["status"] == "scored")


def half_width(row: Row) -> float:
    """Of the interval of discrimination."""
    return float(row["discrimination_high"] - row["discrimination_low"]) / 2


def holds(row: Row, truth: float) -> bool:
    """Whether the interval of discrimination does."""
    return bool(row["discrimination_low"] <= truth <= row["discrimination_high"])


def shared_by(rows: Sequence[Row]) -> DesignEffect:
    """The design effect that a run went by."""
    row = next(row for row in rows if row["shared_discrimination"] is not None)
    return DesignEffect(row["shared_correlation"], row["shared_discrimination"])
