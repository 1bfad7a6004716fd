"""Does the interval at which adaptive scoring stops hold the truth, however it is stopped?

The model: a judge grades short items. It misses active segments, raises false alarms token by
token, and errs more in some prompts than in others; an explanation names only some of what the
feature responds to. Features differ in how much of them is named. The truth is the score of
60,000 items of the same model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from explaining_windows import Q999, context
from scipy import special
from sklearn.metrics import roc_auc_score

from safesail.explaining import FeatureEvidence
from safesail.explaining._design_effect import INDEPENDENT, DesignEffect, PooledDesignEffect
from safesail.explaining._graded import Graded, Part, graded_scores
from safesail.explaining._items import SEGMENT_TOKENS, Item, draw_items, prompt_sizes
from safesail.explaining._looks import critical_values
from safesail.explaining._scores import Interval

PRECISION = 0.10
TOKENS = 32
# Shares of a feature that its explanation names: most explanations are good, some are not.
NAMED = (1.0, 1.0, 0.9, 0.8, 0.6)
PILOT_FEATURES, PILOT_PROMPTS = 30, 3


class Judge(NamedTuple):
    """Shares of active segments missed and of tokens with false alarms; spread over prompts."""

    missed: float
    false_alarms: float
    spread: float


# The spreads give design effects of about 1.0, 1.3 and 2.2 at 40 items where all is named.
JUDGES = {
    "good": Judge(0.05, 0.003, 0.1),
    "medium": Judge(0.15, 0.01, 0.3),
    "poor": Judge(0.30, 0.03, 0.43),
}


def feature(rng: np.random.Generator, per_level: int = 5, per_kind: int = 25) -> FeatureEvidence:
    strata = [("active", level) for level in range(1, 11) for _ in range(per_level)]
    strata += [(kind, 0) for kind in ("silent", "hard_silent") for _ in range(per_kind)]
    contexts = []
    for number, (kind, level) in enumerate(strata):
        true = np.zeros(TOKENS)
        if kind == "active":
            true[rng.integers(TOKENS)] = Q999 / 10 * (level - rng.uniform(0, 0.99))
        contexts.append(
            context(["x"] * TOKENS, true.tolist(), kind=kind, level=level, document=str(number))
        )
    return FeatureEvidence("sae", 3, int(rng.integers(2**40)), Q999, [], contexts, "collected")


def grade(rng: np.random.Generator, judge: Judge, named: float, truth: np.ndarray) -> np.ndarray:
    """Grades of the items of one prompt, by their true activations in tenths of q999."""
    count = len(truth)
    effect = rng.normal(0, judge.spread)
    alarms = 1 - (1 - judge.false_alarms) ** SEGMENT_TOKENS
    draws = rng.random((3, count))
    known = (truth > 0) & (draws[0] < named)
    seen = known & (draws[1] > special.expit(special.logit(judge.missed) + effect))
    alarmed = ~known & (draws[2] < special.expit(special.logit(alarms) + effect))
    right = np.clip(np.ceil(truth / 3.34) + rng.integers(-1, 2, count), 1, 3)
    return np.where(seen, right, np.where(alarmed, rng.integers(1, 4, count), 0))


def tenths(items: list[Item]) -> np.ndarray:
    return np.array([item.truth for item in items]) * 10 / Q999


def graded(
    rng: np.random.Generator, judge: Judge, named: float, prompts: list[list[Item]]
) -> list[list[Graded]]:
    return [
        [
            Graded(Part.whole(item.context, item.truth), [one], number)
            for item, one in zip(items, grade(rng, judge, named, tenths(items)), strict=True)
        ]
        for number, items in enumerate(prompts)
    ]


@cache
def truth(quality: str, named: float) -> dict[str, float]:
    rng = np.random.default_rng(1)
    level = np.where(np.arange(100) < 50, 1 + np.arange(100) % 10, 0)
    grades, true = [], []
    for _ in range(600):
        true.append(np.where(level > 0, level - rng.uniform(0, 0.99, 100), 0))
        grades.append(grade(rng, JUDGES[quality], named, true[-1]))
    x, y = np.concatenate(grades), np.concatenate(true)
    return {
        "correlation": float(np.corrcoef(x, y)[0, 1]),
        "discrimination": float(roc_auc_score(y > 0, x)),
    }


def pilot(rng: np.random.Generator, judge: Judge) -> DesignEffect:
    """The design effect as it is estimated: from the first features, three prompts each."""
    pooled = PooledDesignEffect()
    for number in range(PILOT_FEATURES):
        evidence = feature(rng)
        prompts = draw_items(evidence, prompt_sizes(100, PILOT_PROMPTS), seed=number)
        answered = graded(rng, judge, float(rng.choice(NAMED)), prompts)
        scores = graded_scores([one for of in answered for one in of], largest=3)
        pooled.add(number, scores.contribution)
    return pooled.value()


def looks(
    rng: np.random.Generator,
    judge: Judge,
    named: float,
    effect: DesignEffect,
    per_level: int,
    per_kind: int,
) -> list[dict[str, Interval]]:
    """Intervals of both scores at every look, to the cap."""
    evidence = feature(rng, per_level, per_kind)
    sizes = prompt_sizes(len(evidence.contexts))
    prompts = graded(rng, judge, named, draw_items(evidence, sizes, seed=0))
    times = tuple(sum(sizes[: k + 1]) / sum(sizes) for k in range(len(sizes)))
    found = []
    for number, critical in enumerate(critical_values(times), start=1):
        scores = graded_scores(
            [one for prompt in prompts[:number] for one in prompt],
            largest=3,
            critical_value=critical,
            design_effect=effect,
        )
        found.append({"correlation": scores.correlation, "discrimination": scores.discrimination})
    return found


@dataclass
class Found:
    """Shares of runs whose interval held the truth, and how many prompts were asked."""

    stopped: dict[str, float]
    adversarial: dict[str, float]
    prompts: list[int] = field(repr=False)
    effects: list[float] = field(repr=False)

    @property
    def median_prompts(self) -> float:
        return float(np.median(self.prompts))


def run(
    quality: str,
    features: int,
    *,
    per_level: int = 5,
    per_kind: int = 25,
    features_per_pilot: int = 20,
    estimate: bool = True,
) -> Found:
    rng = np.random.default_rng(11)
    judge = JUDGES[quality]
    stopped: dict[str, list[bool]] = {"correlation": [], "discrimination": []}
    adversarial: dict[str, list[bool]] = {"correlation": [], "discrimination": []}
    prompts, effects = [], []
    effect = INDEPENDENT
    for number in range(features):
        if estimate and number % features_per_pilot == 0:
            effect = pilot(rng, judge)
            effects.append(effect.of("discrimination", [40]))
        named = NAMED[number % len(NAMED)]
        found = looks(rng, judge, named, effect, per_level, per_kind)
        widths = [(f["discrimination"].high - f["discrimination"].low) / 2 for f in found]
        stop = next((k for k, width in enumerate(widths) if width <= PRECISION), len(found) - 1)
        prompts.append(stop + 1)
        for score, true in truth(quality, named).items():
            held = [one[score].low <= true <= one[score].high for one in found]
            stopped[score].append(held[stop])
            adversarial[score].append(all(held))
    return Found(
        {score: float(np.mean(held)) for score, held in stopped.items()},
        {score: float(np.mean(held)) for score, held in adversarial.items()},
        prompts,
        effects,
    )


def test_stopped_intervals_hold_the_truth() -> None:
    found = run("medium", 200, features_per_pilot=50)
    # At a true coverage of 0.95, 200 runs fall below 0.90 once in three hundred.
    assert found.adversarial["discrimination"] >= 0.90, found
    assert found.stopped["discrimination"] >= found.adversarial["discrimination"]
    assert found.median_prompts == 2


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("quality", JUDGES)
@pytest.mark.parametrize(("per_level", "per_kind"), [(5, 25), (10, 50)])
def test_coverage_at_length(quality: str, per_level: int, per_kind: int) -> None:
    found = run(quality, 1_000, per_level=per_level, per_kind=per_kind)
    # At 0.95, 1,000 runs fall below 0.93 once in four hundred.
    assert 0.93 <= found.adversarial["discrimination"] <= 0.99, found
    assert 0.93 <= found.stopped["discrimination"] <= 0.99, found
    assert min(found.stopped["correlation"], found.adversarial["correlation"]) >= 0.93, found
    most = {"good": 1, "medium": 2 if per_level == 5 else 3, "poor": 4}
    assert found.median_prompts <= most[quality]


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_without_the_design_effect_intervals_would_miss() -> None:
    """The estimate is needed: as if items were independent, a poor judge's intervals miss."""
    assert run("poor", 1_000, estimate=False).adversarial["discrimination"] < 0.92
