"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output

StudyOption = Annotated[
    Path, typer.Option("--study", "-s", help="Folder of the study (holds safesail.toml).")
]
LayerOption = Annotated[
    int | None, typer.Option("--layer", help="Only candidates at this layer.", min=0)
]
SaeOption = Annotated[
    str | None, typer.Option("--sae", help="Name of the SAE; by default the best ranked.")
]
ConceptOption = Annotated[
    list[str] | None,
    typer.Option("--concept", "-c", help="Only this concept; may be given several times."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", help="At most so many features, from the concepts in turn.", min=1
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Discard results that other settings made.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the trace of an error.", callback=_output.set_debug, is_eager=True
    ),
]
