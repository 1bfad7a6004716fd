"""`safesail convert-sae`: any layout to a SAELens folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption
from ._output import note


def convert_sae(
    checkpoint: Annotated[Path, typer.Argument(help="Folder or file of the SAE.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[
        str | None,
        typer.Option("--format", help="Its layout, e.g. safe_sail; by default its files tell."),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Layer of a Safe-SAIL checkpoint; by default its name tells.", min=0),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", help="Active features of a Safe-SAIL TopK SAE (200).", min=1),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Name of the model it was trained on.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an SAE that lies there.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Write an SAE of any layout as a folder that SAELens loads.

    \b
    Examples:
      safesail convert-sae ckpt_layer17.pt saes/layer17 --model Qwen/Qwen2.5-3B-Instruct
      safesail convert-sae gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82 saes/gemma-12
    """
    from safesail.sparse_autoencoder import convert

    written = convert(
        checkpoint, out, layout=layout, layer=layer, k=k, model=model, overwrite=overwrite
    )
    note(f"written: {written}; list it in candidates.saes of safesail.toml")
