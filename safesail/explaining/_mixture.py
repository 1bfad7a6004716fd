"""The mixture of windows that scores refer to, whatever was sampled.

Half active, evenly over the activation levels, a quarter silent, a quarter hard silent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from safesail.tables import Context

Stratum = tuple[str, int]

_ACTIVE_SHARE = 0.5
_SILENT_SHARES = {("silent", 0): 0.25, ("hard_silent", 0): 0.25}


def stratum_of(context: Context) -> Stratum:
    """Kind of the window, and its level where it is active."""
    return (context.kind, context.level if context.kind == "active" else 0)


def mixture_weights(contexts: Sequence[Context]) -> NDArray[np.float64]:
    """Weight of each window, shape (windows,), summing to 1.

    A stratum's weights sum to its share of the mixture, so a window weighs as the share that its
    stratum should have over the share that it has in the sample. Within a stratum, windows weigh
    as their inverse sampling probabilities.
    """
    shares = _shares(contexts)
    totals: dict[Stratum, float] = defaultdict(float)
    for context in contexts:
        totals[stratum_of(context)] += context.weight
    return np.array(
        [
            shares[stratum_of(context)] * context.weight / totals[stratum_of(context)]
            for context in contexts
        ]
    )


def describe_mixture(contexts: Sequence[Context]) -> str:
    """The mixture in words, such as `active 0.50 (levels 1-7), silent 0.25, hard_silent 0.25`."""
    shares = _shares(contexts)
    levels = sorted(level for kind, level in shares if kind == "active")
    parts = []
    for kind in ("active", "silent", "hard_silent"):
        share = sum(share for (of, _), share in shares.items() if of == kind)
        if share > 0:
            among = f" (levels {_ranges(levels)})" if kind == "active" else ""
            parts.append(f"{kind} {share:.2f}{among}")
    return ", ".join(parts)


def _shares(contexts: Sequence[Context]) -> dict[Stratum, float]:
    """Share of each present stratum; what is absent leaves its share to its own side."""
    present = {stratum_of(context) for context in contexts}
    levels = [stratum for stratum in present if stratum[0] == "active"]
    shares = {stratum: _ACTIVE_SHARE / len(levels) for stratum in levels}
    silent = {stratum: share for stratum, share in _SILENT_SHARES.items() if stratum in present}
    for stratum, share in silent.items():
        shares[stratum] = (1 - _ACTIVE_SHARE) * share / sum(silent.values())
    total = sum(shares.values())  # below 1 where one side is absent altogether
    return {stratum: share / total for stratum, share in shares.items()}


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as ranges: 1, 2, 3, 5 become `1-3, 5`."""
    breaks = [i for i, (low, high) in enumerate(pairwise(numbers), start=1) if high != low + 1]
    runs = [numbers[start:end] for start, end in zip([0, *breaks], [*breaks, None], strict=True)]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
