"""Names of concepts, and whether a text names its concept, so that matching words would do."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from safesail.generating._texts import words

# As concept files are read; a test holds that both accept the same names.
_NAME = re.compile(r"[\w-]+(/[\w-]+)*")
# Shorter words of a name (`use` of drugs/use) are too common to tell anything.
_SHORTEST = 4
# Snowball's stemmers, by language; other languages' words are compared as they are.
_STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
}


class ConceptWords:
    """The words of a concept's name, which its texts should not need.

    Args:
        concept: name, with `/`, `_` and `-` between its words.
        language: tag of the texts' language, whose stemmer is used.
    """

    def __init__(self, concept: str, language: str) -> None:
        self._language = language.partition("-")[0].lower()
        parts = [word for part in re.split(r"[/_-]+", concept) for word in [*words(part), part]]
        self._spaced = {
            self._stem(part.casefold())
            for part in parts
            if part.isascii() and len(part) >= _SHORTEST
        }
        # A name in a script without spaces, or with letters of its own: sought as it is.
        self._literal = {part.casefold() for part in parts if not part.isascii() and len(part) > 1}

    def named_in(self, text: str) -> list[str]:
        """Words of a text that begin with the stem of a word of the name, each once."""
        found = [
            word
            for word in words(text)
            if any(self._stem(word) == stem or word.startswith(stem) for stem in self._spaced)
        ]
        lowered = text.casefold()
        return list(dict.fromkeys([*found, *(w for w in self._literal if w in lowered)]))

    @cached_property
    def _stemmer(self) -> Any:
        name = _STEMMERS.get(self._language)
        if name is None:
            return None
        # Imported here: it takes seconds, as it brings much of its package.
        from nltk.stem.snowball import SnowballStemmer  # type: ignore[import-untyped]

        return SnowballStemmer(name)

    def _stem(self, word: str) -> str:
        return word if self._stemmer is None else str(self._stemmer.stem(word))


def require_name(concept: str) -> str:
    """The name, if concept files may hold it.

    Raises:
        ValueError: they refuse it.
    """
    if not _NAME.fullmatch(concept):
        raise ValueError(
            f"concept {concept!r}: use letters, digits, _ and -, with / before a child"
        )
    return concept
