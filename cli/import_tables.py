"""`safesail import`: explanations that others wrote."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import note, print_json, print_table, say


class Format(StrEnum):
    """Formats that can be imported."""

    SAFE_SAIL = "safe-sail"
    NEURONPEDIA = "neuronpedia"
    DELPHI = "delphi"


def import_tables(
    path: Annotated[Path, typer.Argument(help="File or folder to read.")],
    format: Annotated[Format, typer.Option("--format", "-f", help="Whose format it is.")],
    language: Annotated[
        str | None,
        typer.Option("--language", help="Of the explanations; by default what the file says."),
    ] = None,
    sae: Annotated[
        str | None,
        typer.Option("--sae", help="SAE that they are of; by default the only one of their layer."),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", help="Only this layer; needed where the file says none.", min=0),
    ] = None,
    study: StudyOption = Path(),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Import explanations from Safe-SAIL's database, Neuronpedia or delphi.

    They stand beside the study's own, marked as imported, with the scores that they came with.
    Importing a file again replaces what it brought before.

    \b
    Examples:
      safesail import neuron_db/en_db.json --format safe-sail --layer 17
      safesail import v1/gemma-2-2b/12-gemmascope-res-16k --format neuronpedia
      safesail import results/my-run --format delphi --sae layer2-resid-topk16
    """
    from safesail.pipeline import import_explanations
    from safesail.study import Study

    opened = Study.open(study)
    found = import_explanations(opened, path, format.value, language=language, sae=sae, layer=layer)
    counts = {name: found.counts(name) for name in found.rows}
    if json:
        print_json({"saes": counts, "replaced": found.replaced, "other_layers": found.left_out})
        return
    print_table(
        ["SAE", "explanations", "null", "masked", "features named twice"],
        [[name, *(f"{count:,}" for count in one.values())] for name, one in counts.items()],
        numbers=range(1, 5),
    )
    if found.replaced:
        say(f"{found.replaced:,} rows of an earlier import were replaced")
    if found.left_out:
        say(f"{found.left_out:,} rows of other layers were left out")
    for name in found.rows:
        note(f"written: {opened.explanations(name)}")
