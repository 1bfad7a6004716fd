"""How a run scores its explanations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from safesail.explaining._choice import Chooser
from safesail.explaining._design_effect import INDEPENDENT, DesignEffect
from safesail.explaining._scorers import DEFAULT_PRECISION

ADAPTIVE = "items"
"""The scorer that stops when it is precise enough."""

PILOT_PROMPTS = 3
"""Prompts of each of the first features, which say how the answers of one prompt go together."""

_PILOT_SHARE = 10
_FEWEST_PILOTS, _MOST_PILOTS = 5, 30


@dataclass(frozen=True)
class Scoring:
    """How explanations are scored.

    Attributes:
        scorer: `items`, `segments`, `tokens`, `detection` or `fuzzing`.
        precision: half-width of discrimination's 95 % interval at which `items` stops.
        design_effect: how the answers of one prompt go together, as an earlier part of the run
            found it; None measures it on the first features.
        duplicates: features that inherit, each with the one that it inherits from.
        chooser: which features are next, where a budget may not last for all.
        given: rows with explanations from elsewhere, by feature, which are scored as they are; the
            judge is asked for no explanation of these.
        seed: of the choice and the order of windows in prompts.
    """

    scorer: str = ADAPTIVE
    precision: float = DEFAULT_PRECISION
    design_effect: DesignEffect | None = None
    duplicates: Mapping[int, int] = field(default_factory=dict)
    chooser: Chooser | None = None
    given: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0

    def after_pilot(self) -> Scoring:
        """The same once a pilot was made, whatever it found."""
        return self if self.design_effect else replace(self, design_effect=INDEPENDENT)

    def pilots(self, features: int) -> int:
        """How many features, the first ones, the design effect is measured on: one in ten."""
        if self.scorer != ADAPTIVE or self.design_effect is not None:
            return 0
        return min(features, max(_FEWEST_PILOTS, min(_MOST_PILOTS, features // _PILOT_SHARE)))
