"""Hand-made contexts for the tests of explaining."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from safesail.explaining import FeatureEvidence
from safesail.tables import Context

Q999 = 5.0

_FILLER = ["the", "a", "of", "people", "walk", "to", "market", "and", "then", "they", "talk"]
_FILLER += ["about", "weather", "in", "town", "while", "music", "plays", "near", "houses", "were"]


def context(
    tokens: Sequence[str],
    activations: Sequence[float],
    *,
    kind: str = "active",
    level: int = 10,
    split: str = "score",
    sample: str = "random",
    document: str = "d",
    start: int = 0,
    weight: float = 1.0,
) -> Context:
    """A context with only what matters given."""
    return Context(
        sae="sae",
        layer=3,
        feature=7,
        split=split,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        level=level if kind == "active" else 0,
        sample=sample,  # type: ignore[arg-type]
        document=document,
        start=start,
        tokens=list(tokens),
        token_ids=list(range(len(tokens))),
        activations=[float(value) for value in activations],
        peak=float(max(activations)),
        peak_at=int(np.argmax(activations)),
        weight=weight,
    )


def planted_feature(seed: int = 0, *, anticipates: bool = False) -> FeatureEvidence:
    """A feature that fires at `murder` and `stabbed`, or just before them, cut into two tokens.

    Hard silent windows hold `murderous mysteries`, which leaves it silent.
    """
    rng = random.Random(seed)
    contexts = []
    for split in ("explain", "score"):
        kinds = [("active", level) for level in range(1, 11) for _ in range(5)]
        kinds += [("silent", 0)] * 25 + [("hard_silent", 0)] * 25
        for number, (kind, level) in enumerate(kinds):
            words = [[" " + rng.choice(_FILLER)] for _ in range(20)]
            values = [[0.0] for _ in words]
            place = rng.randrange(2, 18)
            if kind == "active":
                words[place] = rng.choice([[" mur", "der"], [" stab", "bed"]])
                strength = Q999 * level / 10
                values[place] = [0.0, 0.0] if anticipates else [strength / 2, strength]
                values[place - 1] = [strength if anticipates else 0.0]
            elif kind == "hard_silent":
                words[place : place + 2] = [[" mur", "derous"], [" mysteries"]]
                values[place : place + 2] = [[0.0, 0.0], [0.0]]
            contexts.append(
                context(
                    [token for word in words for token in word],
                    [value for of_word in values for value in of_word],
                    kind=kind,
                    level=level,
                    split=split,
                    document=f"{split}-{number // 2}",
                    start=40 * (number % 2),
                )
            )
    return FeatureEvidence("sae", 3, 7, Q999, ["violence"], contexts, "collected")
