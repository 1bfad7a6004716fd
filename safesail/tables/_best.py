"""Which of several rows of the explanations table says what a feature is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

EXPLAINERS = ("person", "judge", "imported", "lexical")
"""Who explains, the most trusted first; a person's rows are in exports alone."""


def explanation_rank(row: Mapping[str, Any], language: str | None = None) -> tuple[Any, ...]:
    """The rank of a row among those of its feature: the largest is the best.

    A legible text goes before none (a masked one, `***`, is none); then by who explained (see
    `EXPLAINERS`), then one in the language that is wanted, one in English, one with scores, and
    the newest.

    Args:
        row: of the explanations table.
        language: that is wanted; None for any.
    """
    return (
        is_legible(row),
        -EXPLAINERS.index(row["explainer"]),
        row["language"] == language,
        row["language"] == "en",
        any(_defined(row[name]) for name in ("discrimination", "correlation")),
        row["created_at"],
    )


def is_legible(row: Mapping[str, Any]) -> bool:
    """Whether a row has an explanation that says something: a text, and no masked one.

    Args:
        row: of the explanations table.
    """
    return bool((row["explanation"] or "").strip()) and not row.get("masked")


def _defined(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
