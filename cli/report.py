"""`safesail report`: a study's results as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption, StudyOption
from ._output import note


def report(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; by default report.html.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", help="At most so many features, best scored first.", min=0),
    ] = 500,
    study: StudyOption = Path(),
    debug: DebugOption = False,
) -> None:
    """Write ranking, concepts and features as one HTML file that loads nothing.

    \b
    Examples:
      safesail report
      safesail report --limit 2000 --output everything.html
    """
    from safesail.explorer import write_report
    from safesail.study import Study

    opened = Study.open(study)
    path = output or opened.folder / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{path} does not end in .html", param_hint="--output")
    written = write_report(opened, path, limit)
    size = path.stat().st_size / 1e6
    note(f"written: {path} ({written.features:,} of {written.total:,} features, {size:.1f} MB)")
