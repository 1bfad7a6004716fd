"""One HTML file that holds a study's ranking, concepts and features, and needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from safesail.errors import InputError
from safesail.explorer._contexts import Shown
from safesail.explorer._explorer import Explorer
from safesail.explorer._listing import Query
from safesail.explorer._summaries import ConceptSummary
from safesail.explorer._templates import STATIC, environment
from safesail.study import Study
from safesail.tables import written_whole

_SHOWN = Shown(strongest=8, silent=3)
_FIRST_OF_CONCEPT = 12
# Written in pieces: many small writes would each be a call of the system.
_PIECE = 2_000


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: the file.
        features: features that it holds.
        total: features of the study.
    """

    path: Path
    features: int
    total: int


def write_report(study: Study, path: Path, limit: int = 500) -> Report:
    """Write a study's results as one HTML file, whole or not at all.

    It loads nothing, from the network or from beside it, and runs no script but its own.

    Args:
        study: the study.
        path: the file.
        limit: at most so many features, those with the largest discrimination first.

    Raises:
        InputError: the study has no results yet.
        StorageError: a result cannot be read, or the file not be written.
    """
    explorer = Explorer(study)
    total = len(explorer.catalog.numbers)
    if not total and not explorer.overview.ranked_rows:
        raise InputError(f"no results in {study.folder}: run `safesail explain` first")
    keys = _best(explorer, limit)
    style, script = _style(), (STATIC / "explorer.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = _environment(set(keys)).get_template("report.html")
    parts = template.stream(
        study=study.folder.name,
        model=study.configuration.model.name,
        policy=policy,
        style=Markup(style),  # files of this package, not text of others
        script=Markup(script),
        overview=explorer.overview,
        warnings=explorer.catalog.warnings,
        concepts=_concepts(explorer, set(keys)),
        entries=_entries(explorer, keys),
        shown=len(keys),
        total=total,
    )
    parts.enable_buffering(_PIECE)
    with written_whole(path) as file:
        for part in parts:
            file.write(part.encode())
    return Report(path, len(keys), total)


def _best(explorer: Explorer, limit: int) -> list[tuple[str, int]]:
    """The features with the largest discrimination; those without a score come last."""
    rows = explorer.catalog.rows(
        "SELECT sae, feature FROM catalog ORDER BY discrimination IS NULL OR "
        "isnan(discrimination), discrimination DESC, explanation IS NULL, sae, feature "
        "LIMIT $limit",
        {"limit": limit},
    )
    return [(row["sae"], row["feature"]) for row in rows]


def _entries(explorer: Explorer, keys: list[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    return (vars(view) for view in explorer.views(keys, _SHOWN))


def _concepts(
    explorer: Explorer, shown: set[tuple[str, int]]
) -> list[tuple[ConceptSummary, list[dict[str, Any]]]]:
    """Concepts that have features, each with the best of those that the report holds."""
    found = []
    for concept in explorer.overview.concepts:
        if concept.features:
            rows = explorer.features(Query(concept=concept.name)).rows
            held = [row for row in rows if (row["sae"], row["feature"]) in shown]
            found.append((concept, held[:_FIRST_OF_CONCEPT]))
    return found


def _environment(shown: set[tuple[str, int]]) -> Any:
    """Templates whose links lead to places in the report."""

    def to_feature(sae: str, feature: int, query: Query | None = None) -> str:
        return f"#{_anchor('feature', sae, feature)}" if (sae, feature) in shown else ""

    made = environment(
        {
            "to_feature": to_feature,
            "to_concept": lambda name: f"#{_anchor('concept', name)}",
            "to_sae": lambda name: "",
            "to_list": lambda query: "",
        }
    )
    made.globals["anchor"] = _anchor
    return made


def _anchor(*parts: object) -> str:
    """Names of places: what is no letter, digit or hyphen is written as its number."""
    text = "-".join(map(str, parts))
    return re.sub(r"[^A-Za-z0-9-]", lambda found: f"_{ord(found[0]):x}_", text)


def _style() -> str:
    return (STATIC / "explorer.css").read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """What a policy calls a script or style that stands in the page."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
