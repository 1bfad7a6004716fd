"""Cut documents into windows and draw among them by hash, the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from safesail.language_model import TokenizedText

WINDOW_TOKENS = 32
SPLITS = ("explain", "score")

_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Windows:
    """All windows of a tokenised corpus; tokens are numbered through all texts.

    Attributes:
        text: index of the text each window lies in, [W].
        begin: number of its first token, [W].
        end: number after its last token, [W].
        of_token: window of each token, [tokens].
        key: hash of document and place, [W].
        split: 0 for `explain`, 1 for `score`, [W].
    """

    text: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    of_token: NDArray[np.int64]
    key: NDArray[np.uint64]
    split: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[TokenizedText]) -> Windows:
        """Tile every text with windows of at most 32 tokens, of lengths as equal as can be."""
        text, begin, end, keys, splits = [], [], [], [], []
        place = 0
        for number, piece in enumerate(texts):
            tokens = len(piece.token_ids)
            if not tokens:
                continue
            edges = np.linspace(0, tokens, -(-tokens // WINDOW_TOKENS) + 1).round().astype(int)
            split = SPLITS.index(split_of(piece.document))
            for first, last in pairwise(edges.tolist()):
                text.append(number)
                begin.append(place + first)
                end.append(place + last)
                keys.append(_hash(f"{piece.document}\0{piece.start + first}"))
                splits.append(split)
            place += tokens
        lengths = np.array(end) - np.array(begin)
        return cls(
            np.array(text),
            np.array(begin),
            np.array(end),
            np.repeat(np.arange(len(text)), lengths),
            np.array(keys, dtype=np.uint64),
            np.array(splits),
        )

    def priorities(self, feature: int, seed: int) -> NDArray[np.uint64]:
        """A uniform random number for each window, fixed by window, feature and seed, [W].

        Taking the smallest of any set of windows draws from it uniformly without replacement,
        whatever the order in which they were seen.
        """
        salt = np.uint64(_hash(f"{feature}\0{seed}"))
        return _mix(self.key ^ salt)


def split_of(document: str) -> str:
    """`explain` or `score`: all of a document's windows serve one purpose only.

    What follows `~` in an id tells documents of one family apart, which share a split.
    """
    family = document.partition("~")[0] if document.startswith("concept-pair:") else document
    return SPLITS[_hash(f"split\0{family}") % 2]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of the SplitMix64 generator (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values + np.uint64(0x9E3779B97F4A7C15)) & _MASK
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
