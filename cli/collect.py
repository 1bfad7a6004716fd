"""`safesail collect`: where the chosen features fire."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ._downloads import approval
from ._options import (
    ConceptOption,
    DebugOption,
    FeaturesOption,
    JsonOption,
    LimitOption,
    OverwriteOption,
    StudyOption,
    YesOption,
)
from ._output import note, number, print_json, print_table, progress, say
from ._selection import selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safesail.contexts import Engine
    from safesail.pipeline import Collection, Selection
    from safesail.study import Study

_SHOWN = 20
_MOST_SHARDS = 1_000_000

SaesOption = Annotated[
    list[str] | None,
    typer.Option("--sae", help="Name of an SAE, may be repeated; by default the best ranked."),
]
BestOfLayersOption = Annotated[
    list[int] | None,
    typer.Option("--layer", help="The best SAE of this layer; may be repeated.", min=0),
]
ShardOption = Annotated[
    str | None,
    typer.Option("--shard", help="Do part i of n only, as i/n; `safesail merge` joins them."),
]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="local: in this process; ray: workers, one a GPU, by Ray."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Of Ray: how many; by default one a GPU.", min=1)
]
AddressOption = Annotated[
    str | None,
    typer.Option("--ray-address", help="A Ray cluster to join; by default one is started here."),
]


def collect(
    study: StudyOption = Path(),
    sae: SaesOption = None,
    layer: BestOfLayersOption = None,
    concept: ConceptOption = None,
    limit: LimitOption = None,
    features: FeaturesOption = None,
    shard: ShardOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    yes: YesOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Collect statistics and contexts of the chosen features (ranks first if needed).

    Several SAEs share one pass of the model. A run that was stopped goes on where it was.

    \b
    Examples:
      safesail collect --layer 12
      safesail collect --layer 6 --layer 12 --layer 18
      safesail collect --concept fraud --limit 50
      safesail collect --features 579,444,125
      safesail collect --shard 3/8
      safesail collect --engine ray --workers 4
    """
    from safesail.pipeline import collect as run
    from safesail.pipeline import collect_shard
    from safesail.study import Study

    wanted = _selections(sae or [], layer or [], concept, limit, features)
    if engine == "local" and (workers is not None or ray_address is not None):
        raise typer.BadParameter("--workers and --ray-address belong to --engine ray")
    if engine == "ray" and shard is not None:
        raise typer.BadParameter("--shard shares out by hand: it goes with --engine local only")
    part = _shard(shard) if shard is not None else None
    if part is not None and overwrite:
        raise typer.BadParameter("with --shard, delete contexts/ of the study instead")
    opened = Study.open(study)
    if part is not None:
        files = collect_shard(
            opened, wanted, part, progress=progress, approve=approval(yes), tell=note
        )
        if json:
            print_json([str(path) for path in files])
        else:
            say("\n".join(map(str, files)) or "nothing to do: all these features have contexts")
        note(f"when all {part[1]} are done: safesail merge --study {study}")
        return
    found = run(
        opened,
        wanted,
        engine=_ray(opened, workers, ray_address) if engine == "ray" else None,
        overwrite=overwrite,
        progress=progress,
        approve=approval(yes),
        tell=note,
    )
    print_collections(found, json=json)


def _ray(study: Study, workers: int | None, address: str | None) -> Engine:
    from safesail.contexts import RayEngine

    settings = study.configuration
    return RayEngine(
        workers,
        address,
        save_every=settings.collection.checkpoint_seconds,
        use_gpus=settings.model.device != "cpu",
        progress=progress,
        tell=note,
    )


def print_collections(found: Sequence[Collection], *, json: bool) -> None:
    """Show what was collected, SAE by SAE."""
    if json:
        print_json([{"sae": c.sae, "layer": c.layer, "features": c.rows} for c in found])
        return
    for collection in found:
        _print(collection)


def _print(found: Collection) -> None:
    by_feature = {row["feature"]: row for row in reversed(found.rows)}
    statuses = Counter(row["status"] for row in by_feature.values())
    counted = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    say(f"{found.sae}: {len(by_feature)} features ({counted})")
    print_table(
        ("feature", "concept", "separation", "fires on", "max", "raises most"),
        [
            (
                str(feature),
                by_feature[feature]["concept"] or "–",
                number(by_feature[feature]["separation"]),
                f"{100 * (by_feature[feature]['density'] or 0):.2f} % of tokens",
                number(by_feature[feature]["max_activation"]),
                " ".join(by_feature[feature]["top_logits"] or [])[:50],
            )
            for feature in found.features[:_SHOWN]
        ],
        numbers=(0, 2, 3, 4),
    )
    if len(found.features) > _SHOWN:
        say(f"... and {len(found.features) - _SHOWN} more")
    note(f"contexts: {found.folder}")


def _selections(
    saes: Sequence[str | None],
    layers: Sequence[int | None],
    concepts: Sequence[str] | None,
    limit: int | None,
    features: str | None,
) -> list[Selection]:
    if saes and len(layers) > 1:
        raise typer.BadParameter("give --sae or several --layer, not both")
    if features is not None and max(len(saes), len(layers)) > 1:
        raise typer.BadParameter("--features are of one SAE: give one --sae or one --layer")
    chosen = [(sae, layer) for sae in saes or [None] for layer in layers or [None]]
    return [
        selection(sae=s, layer=at, concepts=concepts, limit=limit, features=features)
        for s, at in chosen
    ]


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= _MOST_SHARDS:
        raise typer.BadParameter(
            f"{text!r} is not i/n with 1 <= i <= n, such as 3/8, and n at most {_MOST_SHARDS:,}"
        )
    return int(match[1]), int(match[2])
