"""The checks that every pair goes through, in the order the judge wrote them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from safesail.concepts import ContrastPair
from safesail.generating._naming import ConceptWords
from safesail.generating._pairs import CheckedPair, Remark
from safesail.generating._taken import TakenTexts
from safesail.generating._text_faults import single_spaced, text_faults
from safesail.generating._texts import normalised, word_count

MOST_RATIO = 1.5
# Whatever the ratio: "no" against "no, not at all" is no fault.
_EVEN_WORDS = 2
# Share of the wanted pairs that may name the concept; beyond it the pairs ask for a word.
NAMING_SHARE = 0.25


class PairChecks:
    """Checks pairs one after the other; those that pass are taken, and later ones must differ.

    Args:
        concept: name of the concept.
        language: tag of the texts' language.
        wanted: number of pairs wanted; at most a quarter of it may name the concept.
        existing: pairs of the study, none of whose texts may be repeated.
    """

    def __init__(
        self, concept: str, language: str, wanted: int, existing: Iterable[ContrastPair]
    ) -> None:
        self._language = language
        self._concept_words = ConceptWords(concept, language)
        self._most_naming = math.ceil(NAMING_SHARE * wanted)
        self._naming = 0
        self._passed = 0
        self._taken = TakenTexts()
        for pair in existing:
            for text in (pair.positive, pair.negative):
                self._taken.add(text, f"{pair.concept!r} ({pair.where})")

    def check(self, positive: str, negative: str) -> CheckedPair:
        """Check a pair and, if it passes, take its texts."""
        positive, negative = single_spaced(positive), single_spaced(negative)
        faults = list(self._faults(positive, negative))
        flags = []
        named = self._concept_words.named_in(positive)
        # A look-alike, whose twin names the concept too, gives nothing away.
        if named and not self._concept_words.named_in(negative):
            remark = Remark("names_concept", f"the positive alone says {', '.join(named[:5])}")
            if self._naming < self._most_naming:
                flags.append(remark)
            else:
                faults.append(Remark("names_concept", f"{remark.detail}, as too many do"))
        if not faults:
            self._passed += 1
            self._naming += len(flags)
            for text in (positive, negative):
                self._taken.add(text, f"pair {self._passed} here")
        return CheckedPair(positive, negative, tuple(faults), tuple(flags))

    def _faults(self, positive: str, negative: str) -> Iterator[Remark]:
        sides = (("positive", positive), ("negative", negative))
        for side, text in sides:
            yield from text_faults(text, side, self._language)
        if not (normalised(positive) and normalised(negative)):
            return
        if normalised(positive) == normalised(negative):
            yield Remark("equal_twins", "but for case, spaces and punctuation")
        short, long = sorted((word_count(positive), word_count(negative)))
        if long > MOST_RATIO * short and long - short > _EVEN_WORDS:
            lengths = f"{word_count(positive):g} and {word_count(negative):g}"
            yield Remark("uneven", f"{lengths} words")
        for side, text in sides:
            repeated = self._taken.repeated(text, side)
            if repeated is not None:
                yield repeated
