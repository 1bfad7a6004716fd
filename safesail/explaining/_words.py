"""Words of a window, rebuilt from its token strings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

# Scripts written without spaces are taken character by character.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_LETTERS = rf"[^\W_{_UNSPACED}]+"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTERS}(?:['’-]{_LETTERS})*")


@dataclass(frozen=True)
class Word:
    """A word, lower-cased, and the tokens that it reaches over: `first` up to `last`, both in."""

    text: str
    first: int
    last: int


def words_of(tokens: Sequence[str]) -> list[Word]:
    """The words of a window in order.

    Token strings are joined without a gap, so a word goes on until a space or a mark, whatever
    tokens it was cut into.
    """
    ends = list(accumulate(len(token) for token in tokens))
    return [
        Word(
            match.group().casefold(),
            bisect_right(ends, match.start()),
            bisect_right(ends, match.end() - 1),
        )
        for match in _WORD.finditer("".join(tokens))
    ]
