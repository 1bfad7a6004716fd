"""From shared options to the selection that the library takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safesail.pipeline import Selection


def selection(
    *,
    sae: str | None = None,
    layer: int | None = None,
    concepts: Sequence[str] | None = None,
    limit: int | None = None,
) -> Selection:
    """The part of the study that the options name."""
    from safesail.pipeline import Selection

    return Selection(sae=sae, layer=layer, concepts=tuple(concepts or ()), limit=limit)
