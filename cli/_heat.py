"""Concepts over layers and tokens as a small map of blocks."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TYPE_CHECKING

from ._output import say

if TYPE_CHECKING:
    from safesail.diagnosis import Diagnosis

_BLOCKS = "▁▂▃▄▅▆▇█"
_QUIET, _UNREAD = "·", " "
_TICK = 10


def print_heat_map(found: Diagnosis, threshold: float) -> None:
    """Print one line per concept and layer, one sign per token or, of long texts, per few tokens.

    Concepts whose largest strength is below the threshold are only named.
    """
    width = max(_TICK, min(100, _columns() - _margin(found) - 1))
    step = math.ceil(len(found.tokens) / width)
    lit = [one for one in found.trajectories if one.peak >= threshold and one.peak > 0]
    quiet = [one.concept for one in found.trajectories if one not in lit]
    if lit:
        signs = math.ceil(len(found.tokens) / step)
        say(" " * _margin(found) + _ruler(signs, step))
    for trajectory in sorted(lit, key=lambda one: -one.peak):
        say(f"{trajectory.concept}, up to {trajectory.peak:.2f}")
        for layer, values, features in zip(
            found.layers, trajectory.strengths, trajectory.features, strict=True
        ):
            if features:
                signs_of = [
                    _sign([float(v) for v in values[at : at + step]])
                    for at in range(0, len(values), step)
                ]
                say(f"  {layer.layer:>3} {layer.sae:<{_margin(found) - 7}} " + "".join(signs_of))
    if lit:
        each = "a token" if step == 1 else f"the strongest of {step} tokens"
        say(f"each sign: {each}; ▁ to █: strength 0 to 1 and above; · silent; blank: not read")
    if quiet:
        say(f"below {threshold:g}: {', '.join(quiet)}")
    say()


def _margin(found: Diagnosis) -> int:
    return 7 + max(len(layer.sae) for layer in found.layers)


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def _ruler(signs: int, step: int) -> str:
    """Numbers of tokens above the map."""
    line = ""
    for at in range(0, signs, _TICK):
        line += str(at * step).ljust(_TICK)[:_TICK]
    return line.rstrip()


def _sign(values: list[float]) -> str:
    read = [value for value in values if not math.isnan(value)]
    if not read:
        return _UNREAD
    strongest = max(read)
    if strongest <= 0:
        return _QUIET
    return _BLOCKS[min(len(_BLOCKS) - 1, int(strongest * len(_BLOCKS)))]
