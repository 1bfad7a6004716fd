"""Ask before anything large is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from ._output import note

if TYPE_CHECKING:
    from safesail.sparse_autoencoder import Downloads


def approval(yes: bool) -> Callable[[Downloads], bool]:
    """What asks the user whether SAEs may be downloaded, or answers for them.

    Args:
        yes: the user has agreed on the command line.
    """

    def approve(downloads: Downloads) -> bool:
        from safesail.errors import CandidateError

        if not yes and not sys.stdin.isatty():
            raise CandidateError(f"{downloads}: add --yes to agree, as nobody can be asked here")
        note(str(downloads))
        return yes or typer.confirm("Download them?", err=True)

    return approve
