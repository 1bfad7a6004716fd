"""Texts that are taken, and which of them a new text repeats."""

from __future__ import annotations

import math
from collections import defaultdict

from safesail.generating._pairs import Remark
from safesail.generating._texts import jaccard, n_grams, normalised

NEAR = 0.8


class TakenTexts:
    """Texts with the pair that each belongs to."""

    def __init__(self) -> None:
        self._whole: dict[str, str] = {}
        # By number of n-grams: a text can only be near to those of about its own size.
        self._by_size: defaultdict[int, list[tuple[frozenset[str], str]]] = defaultdict(list)

    def add(self, text: str, owner: str) -> None:
        """Take a text.

        Args:
            text: the text.
            owner: the pair it belongs to, for remarks.
        """
        grams = n_grams(text)
        self._whole.setdefault(normalised(text), owner)
        self._by_size[len(grams)].append((grams, owner))

    def repeated(self, text: str, side: str) -> Remark | None:
        """What a text repeats: the same but for case, spaces and punctuation, or nearly."""
        owner = self._whole.get(normalised(text))
        if owner is not None:
            return Remark("duplicate", f"the {side} is a text of {owner}")
        grams = n_grams(text)
        # The Jaccard index is at most the ratio of the sizes.
        for size in range(math.floor(NEAR * len(grams)), math.ceil(len(grams) / NEAR) + 1):
            for other, owner in self._by_size.get(size, ()):
                if jaccard(grams, other) >= NEAR:
                    return Remark("near_duplicate", f"the {side} is nearly a text of {owner}")
        return None
