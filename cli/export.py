"""`safesail export`: the tables in formats that people use elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import DebugOption, StudyOption
from ._output import note

if TYPE_CHECKING:
    from safesail.study import Study


class Format(StrEnum):
    """Formats: of one table the first four, the others of a study's explanations."""

    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"
    MARKDOWN = "markdown"
    NEURONPEDIA = "neuronpedia"
    DELPHI = "delphi"
    SAFE_SAIL = "safe-sail"
    DATASET = "dataset"


class Table(StrEnum):
    """Result tables."""

    EXPLANATIONS = "explanations"
    FEATURES = "features"
    CONTEXTS = "contexts"
    RANKINGS = "rankings"
    CORRECTIONS = "corrections"


_FILES = (Format.PARQUET, Format.CSV, Format.JSONL, Format.MARKDOWN)
# Options that have a meaning in some formats only.
_MEANT_FOR = {
    "--table": _FILES,
    "--language": (Format.NEURONPEDIA, Format.DELPHI, Format.SAFE_SAIL),
    "--model-id": (Format.NEURONPEDIA,),
    "--set-name": (Format.NEURONPEDIA,),
    "--license": (Format.DATASET,),
    "--push-to-hub": (Format.DATASET,),
}


def export(
    format: Annotated[
        Format, typer.Option("--format", "-f", help="Format of the file or folder.")
    ] = Format.PARQUET,
    table: Annotated[
        Table | None, typer.Option("--table", help="Which result; explanations by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder; by default in exports/.")
    ] = None,
    sae: Annotated[
        str | None, typer.Option("--sae", help="Only this SAE; by default all that have rows.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Only explanations in this language.")
    ] = None,
    model_id: Annotated[
        str | None, typer.Option("--model-id", help="Neuronpedia's id of the model.")
    ] = None,
    set_name: Annotated[
        str | None,
        typer.Option("--set-name", help="Neuronpedia's source set; by default safesail-SAE."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence for a dataset's card, e.g. mit.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", help="Upload the dataset as OWNER/NAME, private where it is new."
        ),
    ] = None,
    study: StudyOption = Path(),
    debug: DebugOption = False,
) -> None:
    """Write results as a file of one table, or as a folder that another tool reads.

    Parquet, CSV, JSONL and Markdown hold one table; neuronpedia, delphi, safe-sail and dataset
    are folders with the explanations and what belongs to them (docs/formats.md). Without --sae
    they hold every SAE that has rows.

    \b
    Examples:
      safesail export --format csv
      safesail export --format markdown --sae layer2-resid-topk16 --output features.md
      safesail export --format neuronpedia --model-id gemma-2-2b
      safesail export --format dataset --license cc-by-4.0 --push-to-hub me/fraud-features
    """
    from safesail.study import Study

    given = {
        "--table": table,
        "--language": language,
        "--model-id": model_id,
        "--set-name": set_name,
        "--license": licence,
        "--push-to-hub": push_to_hub,
    }
    for option, value in given.items():
        if value is not None and format not in _MEANT_FOR[option]:
            formats = ", ".join(_MEANT_FOR[option])
            raise typer.BadParameter(f"only for --format {formats}", param_hint=option)
    opened = Study.open(study)
    if format in _FILES:
        _export_table(opened, format, table or Table.EXPLANATIONS, output, sae)
        return
    _export_folder(
        opened,
        output,
        push_to_hub,
        format=format.value,
        sae=sae,
        language=language,
        model_id=model_id,
        set_name=set_name,
        licence=licence,
    )


def _export_table(
    study: Study, format: Format, table: Table, output: Path | None, sae: str | None
) -> None:
    from safesail.pipeline import load_results
    from safesail.study import CONFIGURATION_FILE
    from safesail.tables import export_table

    ending = {"markdown": "md"}.get(format.value, format.value)
    path = output or study.folder / "exports" / f"{table.value}.{ending}"
    if path.resolve() in (study.folder / CONFIGURATION_FILE, study.rankings, study.judge_cache):
        raise typer.BadParameter(f"{path} is a file of the study", param_hint="--output")
    results = load_results(study, table.value, sae)
    export_table(results, path, format.value)  # type: ignore[arg-type]
    note(f"written: {path} ({results.num_rows:,} rows)")


def _export_folder(
    study: Study, output: Path | None, push_to_hub: str | None, **chosen: Any
) -> None:
    from safesail.pipeline import export_folder, push_dataset

    found = export_folder(study, folder=output, **chosen)
    note(
        f"written: {found.folder} ({found.explanations:,} explanations of {', '.join(found.saes)})"
    )
    if push_to_hub is not None:
        note(f"uploaded: {push_dataset(found.folder, push_to_hub)}")
