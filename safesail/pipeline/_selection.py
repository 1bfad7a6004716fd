"""Which part of a study a command works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from safesail.sparse_autoencoder import SaeFilter


@dataclass(frozen=True)
class Selection:
    """Which part of a study a command works on; empty means all of it."""

    sae: str | None = None
    """Name of the SAE; by default the best ranked."""

    layer: int | None = None
    """Restricts the candidates to one layer."""

    candidates: SaeFilter = field(default_factory=SaeFilter)
    """Restricts the candidates that are ranked: layers, widths, stated L0, names."""

    concepts: tuple[str, ...] = ()
    """Concepts that order the candidates and whose features are taken."""

    limit: int | None = None
    """At most so many features, taken from the concepts in turn, best first."""


def select_features(
    rows: Sequence[dict[str, Any]], concepts: Sequence[str], limit: int | None
) -> list[int]:
    """Features chosen for the concepts, from each concept in turn, best first.

    Args:
        rows: rows of a features table, best first within a concept.
        concepts: concepts to take from.
        limit: at most so many features; None for all.
    """
    by_concept = {
        concept: [row["feature"] for row in rows if row["concept"] == concept]
        for concept in concepts
    }
    in_turn = dict.fromkeys(
        feature
        for place in zip_longest(*by_concept.values())
        for feature in place
        if feature is not None
    )
    return list(in_turn)[:limit]
