"""`safesail release`: SAEs, tables and card in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._downloads import approval
from ._options import DebugOption, StudyOption, YesOption
from ._output import note


def release(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    sae: Annotated[
        list[str] | None,
        typer.Option("--sae", help="Only this SAE, may be given several times; by default all."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence for the card, e.g. mit or cc-by-4.0.")
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Copy published SAEs too, not their names alone.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a release that lies there.")
    ] = False,
    study: StudyOption = Path(),
    yes: YesOption = False,
    debug: DebugOption = False,
) -> None:
    """Bundle the explained SAEs, the tables, the concepts and a card in a folder.

    The folder is a study of its own: `safesail show` reads it, and Python loads it with
    safesail.pipeline.load_release, which verifies its digests. Model, corpus and the judge's
    answers are not in it.

    \b
    Examples:
      safesail release ../fraud-features --license mit
      safesail release out --sae layer2-resid-topk16 --overwrite
    """
    from safesail.pipeline import write_release
    from safesail.study import Study

    written = write_release(
        Study.open(study),
        folder,
        saes=tuple(sae or ()),
        licence=licence,
        with_weights=with_weights,
        overwrite=overwrite,
        approve=approval(yes),
    )
    note(f"written: {folder} ({written.files:,} files, {written.bytes / 1e6:,.1f} MB)")
