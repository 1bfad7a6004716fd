"""`safesail demo`: the main job on the built-in lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption
from ._output import note, progress, say
from .explain import print_explanations
from .rank_saes import print_ranking


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder of the demo study.")] = Path("demo-study"),
    debug: DebugOption = False,
) -> None:
    """Rank, collect and explain on a small language model whose concepts are known.

    Needs no network, key or GPU. Run again, it goes on where it was.

    \b
    Example:
      safesail demo
    """
    from safesail.pipeline import explain, load_results, rank, start_study
    from safesail.study import CONFIGURATION_FILE, Study
    from safesail.tables import export_table

    if not (folder / CONFIGURATION_FILE).exists():
        start_study(folder, model="builtin:lab", saes=[], concepts=[], corpus=[])
    study = Study.open(folder)
    note("The lab: a small language model, really trained, in a world whose concepts are known.")
    note("1/3 ranking its SAEs by how finely they separate the concepts ...")
    ranking = rank(study, progress=progress)
    print_ranking(ranking)
    best = ranking.best()
    say(f"\nChosen: {best}\n")
    note("2/3 collecting the contexts of its safety features, 3/3 explaining and scoring them ...")
    found = explain(study, progress=progress)
    print_explanations(found)
    table = folder / "exports" / "explanations.md"
    export_table(load_results(study, "explanations"), table, "markdown")
    feature = found.rows[0]["feature"]
    say(f"""
On disk, in {folder}/:
  summary.md                         the result to read
  ranking.png                        separating features, separation and I_CDF against L0
  rankings.parquet                   one row per SAE and concept
  features/{best}.parquet            statistics of the chosen features
  contexts/{best}/                   where they fire, token by token
  explanations/{best}.parquet        the neuron explanation table
  exports/explanations.md            the same table in Markdown

Try next:
  safesail show {feature} --study {folder}
  safesail rank-saes --concept fraud --study {folder}
  safesail explain --layer 1 --study {folder}
  safesail export --format csv --study {folder}
  safesail init my-study --model google/gemma-2-2b""")
