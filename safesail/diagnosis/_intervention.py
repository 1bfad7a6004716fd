"""What an intervention did: the result, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from safesail.diagnosis._shift import Mode

VERSION = 1


class TokenProbability(NamedTuple):
    """Probability of a next token before and after.

    Attributes:
        text: the token.
        token_id: of the language model.
        before: without the intervention.
        after: with it.
    """

    text: str
    token_id: int
    before: float
    after: float


@dataclass(frozen=True)
class Answers:
    """What the model goes on with, taking the likeliest token each time.

    Attributes:
        prompt: the text.
        before: without the intervention.
        after: with it, at the prompt's content tokens and at the answer's.
        control: with the first control instead; None without controls.
    """

    prompt: str
    before: str
    after: str
    control: str | None


@dataclass(frozen=True)
class PromptOutcome:
    """What the intervention did to the next token after one prompt.

    Attributes:
        prompt: the text.
        tokens: content tokens, at which the feature was changed.
        strength: largest strength of the feature before, in q999.
        shift: mean over content tokens of the shift's norm over that of the activation.
        kl: Kullback-Leibler divergence of the next token's distribution after from that before,
            in nats: sum of p_before ln(p_before / p_after).
        kl_controls: the same of each control.
        up: tokens whose probability grew most.
        down: those whose probability fell most.
        target_before: total probability of the target tokens.
        target_after: the same with the intervention.
        target_controls: the same with each control.
    """

    prompt: str
    tokens: int
    strength: float
    shift: float
    kl: float
    kl_controls: tuple[float, ...]
    up: tuple[TokenProbability, ...]
    down: tuple[TokenProbability, ...]
    target_before: float
    target_after: float
    target_controls: tuple[float, ...]

    @property
    def log_change(self) -> float:
        """ln(target_after / target_before)."""
        return math.log(self.target_after / self.target_before)

    @property
    def log_change_controls(self) -> tuple[float, ...]:
        """The same of each control."""
        return tuple(math.log(p / self.target_before) for p in self.target_controls)


@dataclass(frozen=True)
class Effect:
    """How much more than the controls a feature moves the target's probability.

    Controls differ from one another by far more than prompts do, so what is asked is whether the
    feature could be one of them.

    Attributes:
        prompts: prompts behind it.
        controls: controls behind it.
        log_change: mean over prompts of ln(probability after / before).
        log_change_low: lower end of its 95 % interval over prompts, Student's t; None with fewer
            than two.
        log_change_high: upper end.
        log_change_controls: mean of the same over prompts and controls.
        difference: the first less the second.
        low: lower end of its 95 % prediction interval: of how much more it moves the target than a
            further control would, Student's t with the standard deviation s of the controls' mean
            changes, s sqrt(1 + 1 / controls). Of a feature that is one more control it holds 0
            in 95 % of draws, where controls' changes are normal. None with fewer than two.
        high: upper end.
        rank_probability: (1 + controls whose mean change is at least as large, either way) /
            (1 + controls): the probability of ranking so high if the feature were one of them.
    """

    prompts: int
    controls: int
    log_change: float
    log_change_low: float | None
    log_change_high: float | None
    log_change_controls: float
    difference: float
    low: float | None
    high: float | None
    rank_probability: float


@dataclass(frozen=True)
class Intervention:
    """What changing one feature does to what the model says.

    Attributes:
        model: name of the language model.
        sae: name of the SAE.
        layer: its layer.
        hook_point: where the activations are changed.
        feature: the feature.
        q999: of the feature.
        mode: `clamp`, `scale` or `ablate`.
        value: of the mode.
        targets: tokens whose total probability is measured, as text.
        controls: features that stand in for the feature, at shifts of equal norm.
        outcomes: one per prompt.
        answers: to the first prompt, where answers were asked for.
        effect: on the targets; None without controls, and where the targets are those that the
            feature's own direction raises most, as any feature raises its own.
    """

    model: str
    sae: str
    layer: int
    hook_point: str
    feature: int
    q999: float
    mode: Mode
    value: float
    targets: tuple[str, ...]
    controls: tuple[int, ...]
    outcomes: tuple[PromptOutcome, ...]
    answers: Answers | None
    effect: Effect | None

    def to_json(self) -> dict[str, Any]:
        """The shape that docs/diagnosis.md describes: the attributes, by name."""
        content = asdict(self)
        for outcome in content["outcomes"]:
            for side in ("up", "down"):
                outcome[side] = [TokenProbability(*one)._asdict() for one in outcome[side]]
        return {"version": VERSION, **content}


def effect_of(outcomes: Sequence[PromptOutcome]) -> Effect | None:
    """The effect over prompts; None without controls."""
    from scipy import stats

    if not outcomes or not outcomes[0].target_controls:
        return None
    own = np.array([outcome.log_change for outcome in outcomes])
    controls = np.array([outcome.log_change_controls for outcome in outcomes]).mean(axis=0)
    own_low = own_high = low = high = None
    if len(own) > 1:
        interval = stats.ttest_1samp(own, 0).confidence_interval(0.95)
        own_low, own_high = float(interval.low), float(interval.high)
    count = len(controls)
    difference = float(own.mean() - controls.mean())
    if count > 1:
        half = stats.t.ppf(0.975, count - 1) * controls.std(ddof=1) * math.sqrt(1 + 1 / count)
        low, high = difference - float(half), difference + float(half)
    as_large = (np.abs(controls) >= abs(own.mean())).sum()
    return Effect(
        prompts=len(own),
        controls=count,
        log_change=float(own.mean()),
        log_change_low=own_low,
        log_change_high=own_high,
        log_change_controls=float(controls.mean()),
        difference=difference,
        low=low,
        high=high,
        rank_probability=float((1 + as_large) / (1 + count)),
    )
