"""Planned looks at a growing sample, with critical values that hold over all looks together."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import optimize, special

ERROR = 0.05
"""Probability that the interval of any look misses the truth."""

# Alpha is spent as 0.05 t^0.5: early, because most features stop early. Chosen by simulation.
_POWER = 0.5
_MOST_LOOKS = 4
_LARGEST_CRITICAL_VALUE = 8.0
_NODES = 64


def spent(time: float) -> float:
    """Error that looks may have spent when this share of the observations is in."""
    return float(ERROR * time**_POWER)


@cache
def critical_values(times: tuple[float, ...]) -> tuple[float, ...]:
    """Critical values of the looks at these times, for two-sided intervals.

    Lan and DeMets (1983): look k may be the first to err with probability
    `spent(times[k]) - spent(times[k - 1])`, so that all looks together err with probability
    `spent(times[-1])`, at most 0.05, and no way of choosing among them can err more often. A
    value depends on earlier times alone: later looks need not be known. Exact where estimates
    are jointly normal and grow by independent increments: looks j < k then correlate by
    sqrt(times[j] / times[k]).

    Args:
        times: shares of the planned observations that are in, rising, the last at most 1; at
            most four.
    """
    if not times or len(times) > _MOST_LOOKS:
        raise ValueError(f"1 to {_MOST_LOOKS} looks are planned, found {len(times)}")
    if list(times) != sorted(set(times)) or times[0] <= 0 or times[-1] > 1:
        raise ValueError(f"times of looks rise from above 0 to at most 1, found {times}")
    earlier = critical_values(times[:-1]) if len(times) > 1 else ()
    held = 1 - spent(times[-1])
    last = optimize.brentq(
        lambda value: _held(times, (*earlier, value)) - held, 0.5, _LARGEST_CRITICAL_VALUE
    )
    return (*earlier, float(last))


def _held(times: tuple[float, ...], bounds: tuple[float, ...]) -> float:
    """Probability that a standardised Brownian motion stays within all bounds at these times.

    Numerical integration look by look (Armitage, McPherson and Rowe 1969).
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # The motion's law at the last look, where it was within the bounds so far; at first at 0.
    places, masses, before = np.zeros(1), np.ones(1), 0.0
    for time, bound in zip(times[:-1], bounds[:-1], strict=True):
        edge = bound * math.sqrt(time)
        deviation = math.sqrt(time - before)
        steps = (edge * nodes[:, None] - places) / deviation
        density = np.exp(-(steps**2) / 2) / (deviation * math.sqrt(2 * math.pi))
        places, masses, before = edge * nodes, edge * weights * (density @ masses), time
    edge, deviation = bounds[-1] * math.sqrt(times[-1]), math.sqrt(times[-1] - before)
    inside = special.ndtr((edge - places) / deviation) - special.ndtr((-edge - places) / deviation)
    return float(inside @ masses)
