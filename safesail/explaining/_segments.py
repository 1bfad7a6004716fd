"""Cut windows of text into segments at clause boundaries, in Chinese and English."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Span = tuple[int, int]

LEAST_TOKENS, MOST_TOKENS = 3, 12
"""Tokens that a segment holds; a window of fewer than three is one segment."""

_MARKS = tuple(".,;:!?…。，；：！？、")
# Between letters or figures they end nothing: 3.5, 10:30, example.com.
_INNER_MARKS = tuple(".,:")
_CLOSERS = "\"'”’)]}»」』）》】"
_ENGLISH = """and but or nor so yet because although though while when where which who that if
unless"""
_CHINESE = "但 但是 可是 而 而且 并且 因为 所以 如果 虽然 然后 或者 不过 于是"
_CONJUNCTIONS = frozenset(f"{_ENGLISH} {_CHINESE}".split())
# A clause of fewer tokens is not cut before a conjunction: bread and butter.
_LONG_ENOUGH = 6


def segments(tokens: Sequence[str]) -> list[Span]:
    """Spans of a window's segments in order, each a first token and the one after its last.

    They tile the window. A segment ends after a token that ends with a mark of punctuation or a
    line break (closing quotes and brackets included), and before a conjunction where at least six
    tokens precede it. Segments of fewer than three tokens join the next one, the last one the one
    before; those of more than twelve are cut evenly.

    The paper that proposes segment simulation does not say how it cuts; these rules are ours.
    """
    starts = [0]
    for place in range(1, len(tokens)):
        if _ends_clause(tokens, place) or (
            tokens[place].strip().casefold() in _CONJUNCTIONS
            and place - starts[-1] >= _LONG_ENOUGH
            and len(tokens) - place >= LEAST_TOKENS
        ):
            starts.append(place)
    return [
        piece
        for first, end in _joined(starts, len(tokens))
        for piece in _cut_evenly(first, end)
        if end > first
    ]


def _ends_clause(tokens: Sequence[str], place: int) -> bool:
    """Whether a clause ends between this token and the one before."""
    after = tokens[place]
    if after.strip() and not after.strip().strip(_CLOSERS) and not after[0].isspace():
        return False  # the quote or bracket closes what came before
    before = place - 1
    # Marks may stand before closing quotes that are tokens of their own.
    while before > 0 and tokens[before].strip() and not tokens[before].strip().strip(_CLOSERS):
        before -= 1
    for text in {tokens[before], tokens[place - 1]}:
        if "\n" in text[len(text.rstrip()) :]:
            return True
    text = tokens[before].rstrip().rstrip(_CLOSERS)
    if not text.endswith(_MARKS):
        return False
    attached = text == tokens[place - 1] and after[:1].isascii() and after[:1].isalnum()
    return not (attached and text.endswith(_INNER_MARKS))


def _joined(starts: list[int], count: int) -> list[Span]:
    """Spans of at least three tokens, as far as there are so many."""
    spans: list[Span] = []
    first = 0
    for end in [*starts[1:], count]:
        if end - first >= LEAST_TOKENS:
            spans.append((first, end))
            first = end
    if first < count:  # too short an end
        first = spans.pop()[0] if spans else 0
        spans.append((first, count))
    return spans


def _cut_evenly(first: int, end: int) -> list[Span]:
    pieces = max(1, math.ceil((end - first) / MOST_TOKENS))
    edges = [first + (end - first) * piece // pieces for piece in range(pieces + 1)]
    return list(pairwise(edges))
