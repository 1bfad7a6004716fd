"""`safesail serve`: a study's results in the browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import DebugOption, StudyOption
from ._output import note

if TYPE_CHECKING:
    from safesail.pipeline import Diagnoser


def serve(
    port: Annotated[
        int, typer.Option("--port", "-p", help="Port of this machine; 0 takes a free one.", min=0)
    ] = 8765,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    study: StudyOption = Path(),
    debug: DebugOption = False,
) -> None:
    """Browse, search and correct the results; diagnose texts. Ctrl-C ends it.

    Pages follow the study's files while other commands write them. Only this machine is answered.

    \b
    Examples:
      safesail serve --open
      safesail serve --study demo-study --port 8800
    """
    from safesail.explorer import serve as serve_pages
    from safesail.study import Study

    opened = Study.open(study)

    def ready(address: str) -> None:
        note(f"serving {opened.folder} at {address} (Ctrl-C ends it)")
        if open:
            webbrowser.open(address)

    def map_features(sae: str) -> Iterator[tuple[int, float, float]]:
        from safesail.pipeline import feature_map

        for row in feature_map(opened, sae):
            yield row["feature"], row["x"], row["y"]

    def open_diagnoser() -> Diagnoser:
        from safesail.pipeline import Diagnoser

        # Nobody is there to be asked: `safesail diagnose` downloads what is missing.
        return Diagnoser(opened, approve=lambda request: False)

    serve_pages(
        opened,
        port,
        ready=ready,
        report=note,
        map_features=map_features,
        open_diagnoser=open_diagnoser,
    )
