"""What people corrected, as a table and as rows that exports carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from safesail.explorer import Correction, latest_corrections, read_corrections
from safesail.pipeline._workspace import rows_of
from safesail.study import Study
from safesail.tables import CORRECTIONS, EXPLANATIONS, table_from_rows
from safesail.tables.formats import best_of_each

_LABELS = ("concepts", "judge_concepts")

PERSON = "person"
"""Explainer of a row whose text a person wrote; such rows are in exports alone."""


def corrections_of(study: Study, saes: Sequence[str] | None = None) -> list[Correction]:
    """The corrections of some SAEs, or of all, oldest first.

    Raises:
        StorageError: they cannot be read.
    """
    return [one for one in read_corrections(study) if saes is None or one.sae in saes]


def corrections_table(study: Study, saes: Sequence[str] | None = None) -> pa.Table:
    """The same as a table, with the columns of `CORRECTIONS`.

    Raises:
        StorageError: they cannot be read.
    """
    rows = []
    for one in corrections_of(study, saes):
        row = one.model_dump()
        for name in ("value", "corrected"):
            row[name] = [row[name]] if isinstance(row[name], str) else row[name]
        rows.append(row)
    return table_from_rows(rows, CORRECTIONS)


def explanations_of(study: Study, sae: str) -> list[dict[str, Any]]:
    """Rows of an SAE's explanations table, and what people corrected of them.

    Raises:
        StorageError: they cannot be read.
    """
    rows = rows_of(study.explanations(sae), EXPLANATIONS)
    return with_corrections(rows, corrections_of(study, [sae]))


def with_corrections(
    rows: Sequence[dict[str, Any]], corrections: Sequence[Correction]
) -> list[dict[str, Any]]:
    """Rows of the explanations table as a format without corrections can carry them.

    A corrected text becomes a row of its own, whose explainer is `person`; it has no score, for
    none was measured of it. Corrected concepts take the place of those in the feature's rows. A
    correction of a text that is no longer the best of its feature is left out.

    Args:
        rows: of one SAE.
        corrections: of the same.
    """
    held = latest_corrections(corrections)
    concepts = {one.feature: one for one, _ in held if one.field == "concepts"}
    found = [
        {**row, **dict.fromkeys(_LABELS, concepts[row["feature"]].value)}
        if row["feature"] in concepts
        else row
        for row in rows
    ]
    for one, original in sorted(held, key=lambda pair: (pair[0].feature, pair[0].language)):
        alike = [r for r in found if (r["feature"], r["language"]) == (one.feature, one.language)]
        best = best_of_each(alike)
        if one.field != "explanation" or not best or best[0]["explanation"] != original:
            continue
        (before,) = best
        kept = ("sae", "layer", "feature", "language", "tags", *_LABELS)
        row = dict.fromkeys(before) | {name: before[name] for name in kept}
        row |= dict.fromkeys(("observations", "calls", "prompt_tokens", "completion_tokens"), 0)
        row |= {"explanation": one.value, "explained_by": one.author, "created_at": one.time}
        found.append(row | {"explainer": PERSON, "status": "explained"})
    return found
