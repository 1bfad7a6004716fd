"""`safesail doctor`: whether everything that a study names can be used."""

from __future__ import annotations

from pathlib import Path

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import print_json, say


def doctor(
    study: StudyOption = Path(), json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Check what is installed, and whether model, SAEs, concepts, corpus and judge can be used.

    Exit code 1 if a check fails. A model that is not downloaded yet is not downloaded: its hub
    entry is asked for. The judge is asked for its list of models, which costs nothing.

    \b
    Example:
      safesail doctor --study my-study
    """
    from safesail.pipeline import check_setup
    from safesail.study import Study

    checks = check_setup(Study.open(study))
    if json:
        print_json([vars(check) for check in checks])
    else:
        for check in checks:
            mark = {"ok": "ok  ", "warning": "note", "failed": "FAIL"}[check.outcome]
            say(f"{mark}  {check.subject}: {check.finding}")
    if any(check.outcome == "failed" for check in checks):
        raise typer.Exit(1)
