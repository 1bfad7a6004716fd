"""Rank candidate SAEs by how finely they separate the user's concepts, before any explanation.

The names below load on first use, so that a ranking can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.ranking._compare import compare
    from safesail.ranking._plot import plot_ranking
    from safesail.ranking._rank import RankedCandidate, score_candidates
    from safesail.ranking._ranking import Ranking
    from safesail.ranking._rows import REFUSED
    from safesail.ranking._summary import CandidateLine, ConceptLine

__all__ = [
    "REFUSED",
    "CandidateLine",
    "ConceptLine",
    "RankedCandidate",
    "Ranking",
    "compare",
    "plot_ranking",
    "score_candidates",
]

_HOMES = {
    "REFUSED": "_rows",
    "CandidateLine": "_summary",
    "ConceptLine": "_summary",
    "RankedCandidate": "_rank",
    "Ranking": "_ranking",
    "compare": "_compare",
    "plot_ranking": "_plot",
    "score_candidates": "_rank",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
