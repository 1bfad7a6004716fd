"""What is known of a feature when it is explained."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safesail.tables import Context

MINIMUM_WINDOWS = 5
"""Active windows, and silent ones, that either split must hold."""


@dataclass(frozen=True)
class FeatureEvidence:
    """A feature with its contexts.

    Attributes:
        sae: name of the SAE.
        layer: block of the language model that the SAE reads.
        feature: index in the SAE.
        q999: 0.999 quantile of the non-zero activations; the scale of levels.
        concepts: concepts that the feature was chosen for, best first.
        contexts: windows of both splits.
        status: `collected`, `too_few_contexts` or `dead`.
    """

    sae: str
    layer: int
    feature: int
    q999: float
    concepts: list[str]
    contexts: list[Context]
    status: str

    @property
    def name(self) -> str:
        """The feature's name across SAEs; seeds what is drawn for it."""
        return f"{self.sae}/{self.feature}"

    def to_explain(self) -> list[Context]:
        """Windows that an explanation may be written from, each once, in a fixed order."""
        windows = {
            (c.document, c.start, tuple(c.token_ids)): c
            for c in self.contexts
            if c.split == "explain"
        }
        return _ordered(windows.values())

    def to_score(self) -> list[Context]:
        """Windows that a score may be taken from, in a fixed order."""
        return _ordered(c for c in self.contexts if c.split == "score" and c.sample == "random")

    def shortage(self) -> str | None:
        """Which windows are too few, in words; None where there are enough."""
        for split, contexts in (("explain", self.to_explain()), ("score", self.to_score())):
            active = sum(context.kind == "active" for context in contexts)
            for kind, count in (("active", active), ("silent", len(contexts) - active)):
                if count < MINIMUM_WINDOWS:
                    return (
                        f"{count} {kind} windows to {split} with, at least {MINIMUM_WINDOWS} "
                        "are needed"
                    )
        return None


def levels(activations: Sequence[float], q999: float) -> NDArray[np.int64]:
    """Activations in tenths of q999, rounded, 0 to 10; shape (tokens,)."""
    scaled = np.asarray(activations, dtype=float) * (10 / q999)
    return np.clip(np.rint(scaled), 0, 10).astype(np.int64)


def shuffled(contexts: Sequence[Context], name: str, seed: int) -> list[Context]:
    """Contexts in an order that depends on the seed and the feature's name alone."""
    drawn = list(contexts)
    random.Random(f"{seed}/{name}").shuffle(drawn)
    return drawn


def _ordered(contexts: Iterable[Context]) -> list[Context]:
    return sorted(contexts, key=lambda c: (c.kind, c.level, c.sample, c.document, c.start))
