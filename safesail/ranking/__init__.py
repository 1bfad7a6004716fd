"""Rank candidate SAEs by how finely they separate the user's concepts, before any explanation."""

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
