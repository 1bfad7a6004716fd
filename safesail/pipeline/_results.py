"""Read a study's results without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from safesail.errors import InputError, StudyConflictError
from safesail.explorer import Correction
from safesail.pipeline._corrected import corrections_of, corrections_table
from safesail.study import Study, require_same
from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    Context,
    read_configuration,
    read_contexts,
    read_table,
)

ResultTable = Literal["rankings", "features", "contexts", "explanations", "corrections"]

_STAGES = {
    "rankings": "safesail rank-saes",
    "features": "safesail rank-saes",
    "contexts": "safesail collect",
    "explanations": "safesail explain",
}
_SCHEMAS = {
    "rankings": RANKINGS,
    "features": FEATURES,
    "contexts": CONTEXTS,
    "explanations": EXPLANATIONS,
}


def load_results(study: Study, table: ResultTable, sae: str | None = None) -> pa.Table:
    """A result table, the rows of all SAEs together or of one.

    Args:
        study: the study.
        table: which result.
        sae: name of an SAE; None for all that have results.

    Raises:
        InputError: there are no such results yet; the command that makes them is named.
        StudyConflictError: SAEs' results were made by different settings, and none is named.
        StorageError: a file cannot be read.
    """
    if table == "corrections":
        corrections = corrections_table(study, None if sae is None else [sae])
        if not corrections.num_rows:
            raise InputError(f"no corrections in {study.folder}: make some in `safesail serve`")
        return corrections
    paths = [
        path
        for path in _paths(study, table)
        if table == "rankings" or sae in (None, _owner(path, table))
    ]
    _require_one_making(paths)
    tables = [read_table(path, _SCHEMAS[table]) for path in paths]
    found = pa.concat_tables(tables) if tables else None
    if found is not None and sae is not None:
        found = found.filter(pc.equal(found["sae"], sae))
    if found is None or not found.num_rows:
        of = f" of SAE {sae!r}" if sae else ""
        raise InputError(f"no {table}{of} in {study.folder}: run `{_STAGES[table]}` first")
    return found.replace_schema_metadata(None)


def _owner(path: Path, table: ResultTable) -> str:
    """The SAE that a file belongs to."""
    return path.parent.name if table == "contexts" else path.stem


def _require_one_making(paths: list[Path]) -> None:
    """Refuse to lay results of different settings side by side."""
    making: dict[str, Any] | None = None
    for path in paths:
        settings = {k: v for k, v in (read_configuration(path) or {}).items() if k != "sae"}
        if making is not None:
            try:
                require_same(making, settings, path)
            except StudyConflictError as error:
                raise StudyConflictError(f"{error}; or name one SAE with --sae") from None
        making = settings


@dataclass(frozen=True)
class FeatureResults:
    """All that a study knows of one feature.

    Attributes:
        rows: its rows of the features table, one per concept; none where it was not chosen.
        explanations: its rows of the explanations table.
        contexts: its contexts.
        corrections: what people corrected of it, oldest first.
    """

    rows: list[dict[str, Any]]
    explanations: list[dict[str, Any]]
    contexts: list[Context]
    corrections: list[Correction]


def load_feature(study: Study, feature: int, sae: str | None = None) -> FeatureResults:
    """All that a study knows of one feature.

    Args:
        study: the study.
        feature: its index.
        sae: name of the SAE; None where only one SAE has contexts, or explanations.

    Raises:
        InputError: no such feature was chosen, or several SAEs could be meant.
    """
    names = [sae] if sae else _explored(study)
    if len(names) > 1:
        raise InputError(f"several SAEs have contexts: {', '.join(names)}; name one with --sae")
    name = names[0] if names else None
    rows = _rows_of_feature(study, "features", name, feature)
    explanations = _rows_of_feature(study, "explanations", name, feature)
    if not rows and not explanations:
        features = load_results(study, "features", name)
        known = sorted(set(features["feature"].to_pylist()))
        shown = ", ".join(map(str, known[:10]))
        raise InputError(
            f"feature {feature} was not chosen in {name or 'any SAE'}; "
            f"chosen ones: {shown}{' ...' if len(known) > 10 else ''}; "
            f"`safesail explain --features {feature}` explains it all the same"
        )
    owners = sorted({row["sae"] for row in [*rows, *explanations]})
    if len(owners) > 1:
        raise InputError(
            f"feature {feature} was chosen in several SAEs: {', '.join(owners)}; "
            "name one with --sae"
        )
    contexts = read_contexts(study.contexts(owners[0]), [feature]).get(feature, [])
    corrections = [one for one in corrections_of(study, owners) if one.feature == feature]
    return FeatureResults(rows, explanations, contexts, corrections)


def _rows_of_feature(
    study: Study, table: Literal["features", "explanations"], sae: str | None, feature: int
) -> list[dict[str, Any]]:
    """Rows of a feature, of all SAEs or of one."""
    tables = [
        read_table(path, _SCHEMAS[table])
        for path in _paths(study, table)
        if sae in (None, _owner(path, table))
    ]
    return [row for t in tables for row in t.filter(pc.equal(t["feature"], feature)).to_pylist()]


def _explored(study: Study) -> list[str]:
    """SAEs that have contexts."""
    return sorted({path.parent.name for path in study.folder.glob("contexts/*/part-*.parquet")})


def _paths(study: Study, table: ResultTable) -> list[Path]:
    if table == "rankings":
        return [study.rankings] if study.rankings.exists() else []
    pattern = "*/part-*.parquet" if table == "contexts" else "*.parquet"
    return sorted((study.folder / table).glob(pattern))
