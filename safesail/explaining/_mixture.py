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

KIND_SHARES = {"active": 0.5, "silent": 0.25, "hard_silent": 0.25}
"""Shares of the reference mixture."""

MISPLACED = "misplaced"
"""Kind of an active window that is marked at the wrong tokens; counts among the silent ones."""

_OTHER_KINDS = ("silent", "hard_silent", MISPLACED)


def stratum_of(context: Context) -> Stratum:
    """Kind of the window, and its level where it is active."""
    return (context.kind, context.level if context.kind == "active" else 0)


def mixture_weights(
    contexts: Sequence[Context], strata: Sequence[Stratum] | None = None
) -> NDArray[np.float64]:
    """Weight of each window, shape (windows,), summing to 1.

    A stratum's weights sum to its share of the mixture, so a window weighs as the share that its
    stratum should have over the share that it has in the sample. Within a stratum, windows weigh
    as their inverse sampling probabilities.

    Args:
        contexts: the windows.
        strata: the stratum of each, where it is not that of `stratum_of`.
    """
    strata = strata or [stratum_of(context) for context in contexts]
    shares = _shares(strata)
    totals: dict[Stratum, float] = defaultdict(float)
    for context, stratum in zip(contexts, strata, strict=True):
        totals[stratum] += context.weight
    return np.array(
        [
            shares[stratum] * context.weight / totals[stratum]
            for context, stratum in zip(contexts, strata, strict=True)
        ]
    )


def describe_mixture(strata: Sequence[Stratum]) -> str:
    """The mixture in words, such as `active 0.50 (levels 1-7), silent 0.25, hard_silent 0.25`."""
    shares = _shares(strata)
    levels = sorted(level for kind, level in shares if kind == "active")
    parts = []
    for kind in ("active", *_OTHER_KINDS):
        share = sum(share for (of, _), share in shares.items() if of == kind)
        if share > 0:
            among = f" (levels {_ranges(levels)})" if kind == "active" else ""
            parts.append(f"{kind} {share:.2f}{among}")
    return ", ".join(parts)


def _shares(strata: Sequence[Stratum]) -> dict[Stratum, float]:
    """Share of each present stratum; what is absent leaves its share to its own side."""
    present = dict.fromkeys(strata)
    active = [stratum for stratum in present if stratum[0] == "active"]
    others = [stratum for stratum in present if stratum[0] != "active"]
    half = KIND_SHARES["active"]
    shares = {stratum: half / len(active) for stratum in active}
    shares |= {stratum: (1 - half) / len(others) for stratum in others}
    total = sum(shares.values())  # below 1 where one side is absent altogether
    return {stratum: share / total for stratum, share in shares.items()}


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as ranges: 1, 2, 3, 5 become `1-3, 5`."""
    breaks = [i for i, (low, high) in enumerate(pairwise(numbers), start=1) if high != low + 1]
    runs = [numbers[start:end] for start, end in zip([0, *breaks], [*breaks, None], strict=True)]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
