"""Scores from grades of parts of windows: items, segments, whole windows, marked words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safesail.explaining._design_effect import (
    INDEPENDENT,
    Contribution,
    DesignEffect,
    contribution,
)
from safesail.explaining._mixture import Stratum, describe_mixture, mixture_weights, stratum_of
from safesail.explaining._sample import Sample
from safesail.explaining._scores import FIXED_LOOK, Interval, score_interval
from safesail.tables import Context

CHANCE = 0.5
"""Discrimination of grades that know nothing, whatever the share of active windows."""


@dataclass(frozen=True)
class Part:
    """What one window is asked about in one prompt.

    Attributes:
        context: the window.
        truth: true activation of each part that gets a grade.
        repeats: how many tokens each part stands for in the correlation.
        stratum: of the window; that of `stratum_of` unless something was done to it.
    """

    context: Context
    truth: Sequence[float]
    repeats: Sequence[int]
    stratum: Stratum

    @classmethod
    def whole(cls, context: Context, truth: float, stratum: Stratum | None = None) -> Part:
        """A window that gets one grade."""
        return cls(context, [truth], [1], stratum or stratum_of(context))


@dataclass(frozen=True)
class Graded:
    """A part with the judge's grades.

    Attributes:
        part: what was asked about.
        grades: one per part of it.
        prompt: number of the prompt.
    """

    part: Part
    grades: Sequence[float]
    prompt: int


@dataclass(frozen=True)
class GradedScores:
    """Scores of graded windows.

    Attributes:
        correlation: weighted Pearson correlation of grades and true activations.
        discrimination: weighted AUROC of the windows' largest grades; 0.5 is chance.
        observations: windows behind both.
        mixture: kinds of windows that the scores refer to, with their shares.
        active_share: share of active windows among those graded, before weighting.
        design_effect: factor of the variance of `discrimination` that its interval has in it.
        contribution: what the feature says of the design effect.
    """

    correlation: Interval
    discrimination: Interval
    observations: int
    mixture: str
    active_share: float
    design_effect: float
    contribution: Contribution | None


def graded_scores(
    graded: Sequence[Graded],
    *,
    largest: int,
    critical_value: float = FIXED_LOOK,
    design_effect: DesignEffect = INDEPENDENT,
) -> GradedScores:
    """Score grades against the truth, weighted back to the reference mixture.

    Args:
        graded: windows with their grades; at least one.
        largest: the largest grade; 0 is the smallest.
        critical_value: standard errors in half an interval.
        design_effect: how the answers of one prompt go together.
    """
    # A fixed order: where windows tie, the same one is typical, whatever order they came in.
    graded = sorted(graded, key=lambda one: (one.part.context.document, one.part.context.start))
    strata = [one.part.stratum for one in graded]
    contexts = [one.part.context for one in graded]
    sample = Sample(
        [np.repeat(np.asarray(one.part.truth, dtype=float), one.part.repeats) for one in graded],
        [np.repeat(np.asarray(one.grades, dtype=float), one.part.repeats) for one in graded],
        mixture_weights(contexts, strata),
        strata,
        [context.document for context in contexts],
        scale=(0.0, float(largest)),
    )
    prompts = [one.prompt for one in graded]
    sizes = [prompts.count(prompt) for prompt in sorted(set(prompts))]
    return GradedScores(
        correlation=score_interval(
            "correlation",
            sample,
            critical_value=critical_value,
            design_effect=design_effect.of("correlation", sizes),
        ),
        discrimination=score_interval(
            "discrimination",
            sample,
            critical_value=critical_value,
            design_effect=design_effect.of("discrimination", sizes),
        ),
        observations=len(graded),
        mixture=describe_mixture(strata),
        active_share=float(sample.active.mean()),
        design_effect=design_effect.of("discrimination", sizes),
        contribution=contribution(sample, prompts),
    )
