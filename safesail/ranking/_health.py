"""What is wrong with a candidate, from what was observed of it. Thresholds: docs/ranking.md."""

from __future__ import annotations

from safesail.ranking._observe import Observation
from safesail.ranking._wiring import Wiring

OK = "ok"
# What a candidate might be instead must leave at most so much of its own unexplained share.
_SURELY, _PERHAPS = 0.5, 0.8
# Own unexplained share over that on turned inputs.
_KNOWS_NOTHING, _KNOWS_LITTLE = 0.9, 0.6
_DENSE = 0.25
_OFF = 5.0


def judge_health(observation: Observation) -> tuple[str, list[str]]:
    """Health of a candidate and what to warn of.

    Returns:
        `ok` or what is wrong, in one line, and the warnings.
    """
    warnings = _l0_warnings(observation)
    health = OK
    fvu = observation.sample.fvu
    if not fvu <= 1:
        health = (
            f"FVU {fvu:.2f}: reconstructs worse than the mean; "
            "another layer, model or normalisation than it was trained on?"
        )
    if observation.wiring is not None:
        suspicion = _suspicion(observation.wiring, observation.sae.hook_point)
        if suspicion is not None:
            sure, what = suspicion
            if sure:
                health = what
            else:
                warnings.append(what)
    return health, warnings


def _suspicion(wiring: Wiring, hook_point: str) -> tuple[bool, str] | None:
    """What the candidate seems to have been made for, and whether that is sure."""
    own = wiring.own
    if wiring.layers:
        other = min(wiring.layers, key=wiring.layers.__getitem__)
        least = wiring.layers[other]
        if least <= _PERHAPS * own and least <= (wiring.scaled or least):
            return least <= _SURELY * own, (
                f"reads like an SAE of {other}: {least:.2f} of the variance unexplained there, "
                f"{own:.2f} at {hook_point}; set `metadata.hook_name` in its cfg.json"
            )
    if wiring.scaled is not None and wiring.scaled <= _PERHAPS * own:
        return wiring.scaled <= _SURELY * own, (
            f"reads like an SAE of activations times {wiring.scale:.3g}: {wiring.scaled:.2f} of "
            f"the variance unexplained so, {own:.2f} as it is; fold the normalisation of its "
            "training into its weights with SAELens and save it again"
        )
    if own >= _KNOWS_LITTLE * wiring.turned:
        return own >= _KNOWS_NOTHING * wiring.turned, (
            f"does hardly better on this model ({own:.2f} of the variance unexplained) than on its "
            f"activations turned at random ({wiring.turned:.2f}): trained on another model, or not "
            "at all?"
        )
    return None


def _l0_warnings(observation: Observation) -> list[str]:
    l0, width, stated = observation.sample.l0, observation.sae.width, observation.sae.stated_l0
    warnings = []
    if l0 > _DENSE * width:
        warnings.append(
            f"{l0:,.0f} of its {width:,} features are active on a token: was its threshold lost?"
        )
    if stated and not stated / _OFF <= l0 <= stated * _OFF:
        warnings.append(
            f"L0 is {l0:,.1f}, its makers state {stated:,.1f}: threshold lost, or inputs of "
            "another scale than in training?"
        )
    return warnings
