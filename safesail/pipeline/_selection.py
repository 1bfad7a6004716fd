"""Which part of a study a command works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from safesail.errors import InputError
from safesail.sparse_autoencoder import SaeFilter


@dataclass(frozen=True)
class Selection:
    """Which part of a study a command works on; empty means all of it.

    Raises:
        InputError: features are named, and concepts or a limit are to choose them too.
    """

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

    features: tuple[int, ...] = ()
    """Indices of the features to take, whatever the concepts chose."""

    def __post_init__(self) -> None:
        if self.features and (self.concepts or self.limit is not None):
            raise InputError("features that are named are not chosen by concepts or a limit too")

    @property
    def takes_all(self) -> bool:
        """Whether nothing narrows the features of the SAE."""
        return not self.features and not self.concepts and self.limit is None


def chosen_for(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Concepts that a feature was chosen for, best first; none where it was named by number.

    Args:
        rows: of the features table, all of one feature.
    """
    chosen = [row for row in rows if row["concept"] is not None]
    return [row["concept"] for row in sorted(chosen, key=lambda row: -(row["separation"] or 0.0))]


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
