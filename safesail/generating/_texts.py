"""Texts as they are compared: normalised, as words, as character n-grams."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

# Scripts written without spaces are taken character by character.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_N_GRAM = 3


def normalised(text: str) -> str:
    """Text without what makes no other text: case, punctuation, spaces, forms of a character.

    Unicode's caseless compatibility form (The Unicode Standard, section 3.13, D147), in which all
    but letters, marks and numbers becomes a space; single-spaced. Idempotent.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    folded = unicodedata.normalize("NFKD", folded)
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return unicodedata.normalize("NFKC", " ".join(kept.split()))


def words(text: str) -> list[str]:
    """The normalised words in order; a character of an unspaced script is a word."""
    return _WORD.findall(normalised(text))


def terms(text: str) -> list[str]:
    """The words of a text, then its pairs of neighbouring words."""
    found = words(text)
    return found + [f"{first} {second}" for first, second in pairwise(found)]


def word_count(text: str) -> float:
    """Length in words; two characters of an unspaced script count as one."""
    found = words(text)
    return sum(0.5 if _UNSPACED_CHARACTER.match(word) else 1.0 for word in found)


def n_grams(text: str) -> frozenset[str]:
    """Runs of three characters of the normalised text; the whole text where it is shorter."""
    whole = normalised(text)
    last = max(len(whole) - _N_GRAM, 0)
    return frozenset(whole[start : start + _N_GRAM] for start in range(last + 1))


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Size of the intersection over that of the union; the sets are not both empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)
