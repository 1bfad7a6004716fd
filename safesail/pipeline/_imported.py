"""Imported explanations of a study that its judge can score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safesail.errors import InputError
from safesail.pipeline._collect import Collection
from safesail.pipeline._workspace import Workspace
from safesail.tables import is_legible

IMPORTED = "imported"
"""Explainer of a row with an imported explanation; its status too, until a judge scores it."""


def imported_rounds(
    workspace: Workspace, collection: Collection, known: Sequence[dict[str, Any]], source: str
) -> list[Mapping[int, dict[str, Any]]]:
    """Rows that were imported from a source and can be scored, by feature, one text in each round.

    What cannot be is told: rows without a text, with a masked one, or of features whose contexts
    were not collected.

    Args:
        workspace: the run; its language is that of the explanations.
        collection: features with contexts.
        known: rows of the SAE's explanations table.
        source: as the column `source` has it.

    Raises:
        InputError: nothing that can be scored was imported from there; what was is named.
    """
    language = workspace.settings.judge.language
    # Rows of the same source that score it have the judge's name.
    entered = [row for row in known if row["explainer"] == IMPORTED and row["judge_url"] is None]
    ours = [row for row in entered if (row["source"], row["language"]) == (source, language)]
    if not ours:
        there = sorted({f"{row['source']} ({row['language']})" for row in entered})
        raise InputError(
            f"nothing in language {language} was imported from {source!r} for {collection.sae}; "
            + (f"there are: {', '.join(there)}" if there else "see `safesail import --help`")
        )
    legible = [row for row in ours if is_legible(row)]
    collected = set(collection.features)
    scored = [row for row in legible if row["feature"] in collected]
    reasons = [
        (len(ours) - len(legible), "have no legible text"),
        (
            len(legible) - len(scored),
            "are of features without contexts, which `safesail collect --features` collects",
        ),
    ]
    left_out = ", ".join(f"{count} {why}" for count, why in reasons if count)
    if not scored:
        raise InputError(f"none of the {len(ours)} explanations can be scored: {left_out}")
    if left_out:
        workspace.tell(f"not scored: of {len(ours)} imported explanations {left_out}")
    texts: dict[int, list[dict[str, Any]]] = {}
    for row in scored:
        texts.setdefault(row["feature"], []).append(row)
    return [
        {feature: rows[number] for feature, rows in texts.items() if number < len(rows)}
        for number in range(max(map(len, texts.values())))
    ]
