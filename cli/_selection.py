"""From shared options to the selection that the library takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from safesail.pipeline import Selection


def selection(
    *,
    sae: str | None = None,
    layer: int | None = None,
    concepts: Sequence[str] | None = None,
    limit: int | None = None,
    features: str | None = None,
) -> Selection:
    """The part of the study that the options name."""
    from safesail.pipeline import Selection

    if features is not None and (concepts or limit is not None):
        raise typer.BadParameter(
            "--features says which features: --concept and --limit choose others, leave them out"
        )
    return Selection(
        sae=sae,
        layer=layer,
        concepts=tuple(concepts or ()),
        limit=limit,
        features=_numbers(features) if features is not None else (),
    )


def _numbers(text: str) -> tuple[int, ...]:
    if re.fullmatch(r"\s*-?[0-9]{1,15}\s*(,\s*-?[0-9]{1,15}\s*)*", text) is None:
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 579,444", param_hint="--features"
        )
    return tuple(int(number) for number in text.split(","))
