"""`safesail list-saes`: which published SAEs there are for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from ._options import (
    DebugOption,
    JsonOption,
    L0Option,
    LayersOption,
    SaePatternOption,
    WidthOption,
)
from ._output import note, number, print_json, print_table, say


def list_saes(
    model: Annotated[
        str | None, typer.Option("--model", help="Only SAEs of this model, e.g. gemma-2-2b.")
    ] = None,
    release: Annotated[
        str | None, typer.Option("--release", help="List every SAE of this release.")
    ] = None,
    layers: LayersOption = None,
    width: WidthOption = None,
    l0: L0Option = None,
    sae: SaePatternOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the SAEs in SAELens' directory, without network.

    \b
    Examples:
      safesail list-saes --model gemma-2-2b
      safesail list-saes --release gemma-scope-2b-pt-res-canonical
      safesail list-saes --model gemma-2-2b --layers 10-14 --width 16k-65k --l0 50-100
      safesail list-saes --sae 'gpt2-small-*:blocks.8.*'
    """
    from safesail.errors import InputError
    from safesail.sparse_autoencoder import SaeFilter, directory

    wanted = SaeFilter.parse(layers=layers, width=width, l0=l0, name=sae)
    of_model = [e for e in directory(model) if release in (None, e.release)]
    if not of_model:
        what = f"release {release!r}" if release else f"model {model!r}"
        raise InputError(
            f"SAELens' directory has no {what}; `safesail list-saes` lists all releases"
        )
    entries = [e for e in of_model if e.fits(wanted)]
    if not entries:
        raise InputError(f"of the {len(of_model):,} SAEs there, none has {wanted}")
    if json:
        print_json([vars(entry) for entry in entries])
    elif release or wanted:
        print_table(
            ("candidate", "layer", "width", "L0"),
            [
                (
                    f"{e.release}:{e.sae_id}",
                    "–" if e.layer is None else str(e.layer),
                    "–" if e.width is None else f"{e.width:,}",
                    number(e.l0, 0),
                )
                for e in entries
            ],
            numbers=(1, 2, 3),
        )
    else:
        releases: dict[str, list] = {}
        for entry in entries:
            releases.setdefault(entry.release, []).append(entry)
        print_table(
            ("release", "model", "SAEs", "layers", "for example"),
            [
                (
                    name,
                    members[0].model,
                    str(len(members)),
                    _layers([e.layer for e in members]),
                    f"{name}:{members[len(members) // 2].sae_id}",
                )
                for name, members in releases.items()
            ],
            numbers=(2,),
        )
        say(f"{len(releases)} releases, {len(entries)} SAEs")
        note("put `release:sae_id` into candidates.saes of safesail.toml; * matches many")


def _layers(layers: list[int | None]) -> str:
    known = sorted({layer for layer in layers if layer is not None})
    return f"{known[0]}-{known[-1]}" if known else "–"
