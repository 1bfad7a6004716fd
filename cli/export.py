"""`safesail export`: the tables in formats that people use elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption, StudyOption
from ._output import note


class Format(StrEnum):
    """File formats."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    MARKDOWN = "markdown"


class Table(StrEnum):
    """Result tables."""

    EXPLANATIONS = "explanations"
    FEATURES = "features"
    CONTEXTS = "contexts"
    RANKINGS = "rankings"


def export(
    format: Annotated[Format, typer.Option("--format", "-f", help="File format.")] = Format.PARQUET,
    table: Annotated[Table, typer.Option("--table", help="Which result.")] = Table.EXPLANATIONS,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; by default in exports/.")
    ] = None,
    sae: Annotated[
        str | None, typer.Option("--sae", help="Only this SAE; by default all that have rows.")
    ] = None,
    study: StudyOption = Path(),
    debug: DebugOption = False,
) -> None:
    """Write a result table as Parquet, CSV, JSONL or Markdown.

    Without --sae the table holds the rows of every SAE that has some.

    \b
    Examples:
      safesail export --format csv
      safesail export --format markdown --sae layer2-resid-topk16 --output features.md
    """
    from safesail.pipeline import load_results
    from safesail.study import CONFIGURATION_FILE, Study
    from safesail.tables import export_table

    opened = Study.open(study)
    ending = {"markdown": "md"}.get(format.value, format.value)
    path = output or opened.folder / "exports" / f"{table.value}.{ending}"
    if path.resolve() in (opened.folder / CONFIGURATION_FILE, opened.rankings, opened.judge_cache):
        raise typer.BadParameter(f"{path} is a file of the study", param_hint="--output")
    results = load_results(opened, table.value, sae)
    export_table(results, path, format.value)
    note(f"written: {path} ({results.num_rows:,} rows)")
