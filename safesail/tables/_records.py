"""Rows as Python objects, for the stages that work on one feature at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from safesail.tables._files import read_table
from safesail.tables._schemas import CONTEXTS, TableSchema


def explained_by(row: Mapping[str, Any]) -> str:
    """Who wrote a row's explanation: a person, a file's source, the judge's model, or `lexical`.

    Args:
        row: of the explanations table.
    """
    if row["explainer"] == "person":
        return str(row["explained_by"])
    return str(row["source"] or row["judge_model"] or row["explainer"])


@dataclass(frozen=True)
class Context:
    """A window of at most 32 tokens with one feature's activations; fields as in `CONTEXTS`."""

    sae: str
    layer: int
    feature: int
    split: Literal["explain", "score"]
    kind: Literal["active", "silent", "hard_silent"]
    level: int
    sample: Literal["top", "random"]
    document: str
    start: int
    tokens: list[str]
    token_ids: list[int]
    activations: list[float]
    peak: float
    peak_at: int
    weight: float


def read_contexts(folder: Path, features: Iterable[int] | None = None) -> dict[int, list[Context]]:
    """Contexts of an SAE by feature, from `contexts/<sae>/part-*.parquet`.

    Of each shard, only the row groups that can hold one of `features` are read.

    Raises:
        StorageError: a shard cannot be read.
    """
    wanted = None if features is None else set(features)
    found: dict[int, list[Context]] = defaultdict(list)
    for shard in sorted(folder.glob("part-*.parquet")):
        for row in read_table(shard, CONTEXTS, wanted).to_pylist():
            found[row["feature"]].append(Context(**row))
    return dict(found)


def table_from_rows(rows: Iterable[Mapping[str, Any]], schema: TableSchema) -> pa.Table:
    """A table in the schema's column order; a column that a row lacks is null."""
    names = [column.name for column in schema.columns]
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in names} for row in rows], schema=schema.arrow()
    )
