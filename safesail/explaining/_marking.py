"""Windows with words marked for fuzzing: the right ones, or as many wrong ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from safesail.explaining._evidence import shuffled
from safesail.explaining._items import unmarked
from safesail.explaining._mixture import MISPLACED, Stratum, stratum_of
from safesail.tables import Context

Span = tuple[int, int]

# Tokens this near to the window's peak are the right ones.
_NEAR_PEAK = 0.5


@dataclass(frozen=True)
class MarkedWindow:
    """A window with marks.

    Attributes:
        context: the window.
        text: with the marked tokens in double brackets.
        truth: largest true activation at the marked tokens.
        stratum: the window's own where the marks are right or it is silent, else `misplaced`.
    """

    context: Context
    text: str
    truth: float
    stratum: Stratum


def marked_windows(windows: Sequence[Context], name: str, seed: int) -> list[MarkedWindow]:
    """Mark the right tokens in every second active window of a level, and wrong ones elsewhere.

    Right are tokens of at least half the window's peak. Wrong ones are runs of the same lengths
    elsewhere, where the window is as silent as it can be; silent windows take the lengths of an
    active one drawn for them.
    """
    rng = random.Random(f"marks/{seed}/{name}")
    drawn = shuffled(windows, name, seed)
    runs = [_right(context) for context in drawn if context.kind == "active"]
    marked, seen = [], dict.fromkeys(range(11), 0)
    for context in drawn:
        if context.kind == "active":
            seen[context.level] += 1
            # Odd numbers of windows favour the right marks in one level, the wrong in the next.
            is_right = (seen[context.level] + context.level) % 2 == 0
            right = _right(context)
            wrong = None if is_right else _elsewhere(context, right, rng)
            stratum = stratum_of(context) if wrong is None else (MISPLACED, 0)
            marked.append(_marked(context, right if wrong is None else wrong, stratum))
        else:
            like = rng.choice(runs) if runs else [(0, 1)]
            spans = _elsewhere(context, like, rng) or [(0, 1)]
            marked.append(_marked(context, spans, stratum_of(context)))
    return marked


def _right(context: Context) -> list[Span]:
    """Runs of tokens of at least half the peak."""
    near = [value >= _NEAR_PEAK * context.peak for value in context.activations]
    edges = [place for place, (a, b) in enumerate(pairwise([False, *near, False])) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _elsewhere(context: Context, like: Sequence[Span], rng: random.Random) -> list[Span] | None:
    """Runs as long as these at other tokens, apart from each other; None if there is no room."""
    values = context.activations
    limit = _NEAR_PEAK * context.peak if context.kind == "active" else float("inf")
    taken = [value >= limit for value in values]
    placed: list[Span] = []
    for length in sorted((end - first for first, end in like), reverse=True):
        starts = [s for s in range(len(values) - length + 1) if not any(taken[s : s + length])]
        if not starts:
            break
        loudness = {start: max(values[start : start + length]) for start in starts}
        quietest = min(loudness.values())
        start = rng.choice([s for s in starts if loudness[s] == quietest])
        placed.append((start, start + length))
        for place in range(max(0, start - 1), min(len(values), start + length + 1)):
            taken[place] = True  # neighbours too: two runs that touch would look like one
    return sorted(placed) or None


def _marked(context: Context, spans: Sequence[Span], stratum: Stratum) -> MarkedWindow:
    opened, closed = {first for first, _ in spans}, {end for _, end in spans}
    pieces = []
    for place, token in enumerate(context.tokens):
        pieces.append(("⟫" if place in closed else "") + ("⟪" if place in opened else ""))
        pieces.append(unmarked(token))
    pieces.append("⟫" if len(context.tokens) in closed else "")
    truth = max(max(context.activations[first:end]) for first, end in spans)
    return MarkedWindow(context, "".join(pieces), truth, stratum)
