"""What is wrong with one text, whatever its twin is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from safesail.generating._pairs import Remark
from safesail.generating._texts import normalised, word_count

MOST_WORDS = 60
# A word without end is no word.
MOST_CHARACTERS = 600

# Joiners that Persian, Hindi and emoji are written with; other invisible characters have no place.
_JOINERS = "\u200c\u200d"
_SPACES = "\n\r\t"
_PLACEHOLDER = re.compile(
    r"\[[^\]]{1,40}\]|<[^<>]{1,40}>|\{[^{}]{1,40}\}|_{3,}|\b[Xx]{3,}\b|\blorem ipsum\b"
    r"|【[^】]{1,40}】",
    re.IGNORECASE,
)
# Narrower than what a whole answer is judged by: "Sorry, I stole your money" is a good text.
_REFUSAL = re.compile(
    r"\bas an ai\b|\bai (?:language model|assistant)\b"
    r"|\bi(?:['’]m| am) (?:unable|not able) to (?:help|assist|provide|write|create|generate|comply)"
    r"|\bi (?:can['’]?t|cannot|can not|won['’]?t|will not) "
    r"(?:help with|assist|provide|write|create|generate|comply|fulfil)"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型)|我(?:无法|不能)(?:提供|生成|协助|满足|帮助你)",
    re.IGNORECASE,
)
_LATIN = "cs da de en es et fi fr hr hu id it lt lv ms nb nl nn no pl pt ro sk sl sv sw tr vi"
# By language: first words of the Unicode names of its letters.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_LATIN.split(), ("LATIN",)),
    **dict.fromkeys(("be", "bg", "mk", "ru", "uk"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    "bn": ("BENGALI",),
    "el": ("GREEK",),
    "he": ("HEBREW",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "ko": ("HANGUL", "CJK"),
    "sr": ("CYRILLIC", "LATIN"),
    "ta": ("TAMIL",),
    "th": ("THAI",),
    "zh": ("CJK",),
}


def single_spaced(text: str) -> str:
    """Text with every run of spaces and line ends as one space."""
    return re.sub(r"[ \n\r\t\u00a0\u3000]+", " ", text).strip(" ")


def scripts_of(language: str) -> tuple[str, ...]:
    """Scripts that a language is written in; none where that is not known here."""
    return _SCRIPTS.get(language.partition("-")[0].lower(), ())


def text_faults(text: str, side: str, language: str) -> Iterator[Remark]:
    """What speaks against a text.

    Args:
        text: the text.
        side: `positive` or `negative`, for the remarks.
        language: tag of the language it should be in; its script is looked at, not its words.
    """
    if not normalised(text):
        yield Remark("empty", f"the {side} has no letter or digit")
        return
    hidden = sorted({c for c in text if _is_control(c)})
    if hidden:
        codes = ", ".join(f"U+{ord(c):04X}" for c in hidden[:5])
        yield Remark("control_characters", f"the {side} holds {codes}")
    scripts = scripts_of(language)
    letters = [c for c in unicodedata.normalize("NFKC", text) if c.isalpha()]
    own = sum(unicodedata.name(c, "").partition(" ")[0] in scripts for c in letters)
    if scripts and letters and own < len(letters) / 2:
        share = f"{own} of {len(letters)} letters"
        yield Remark("wrong_script", f"the {side} has {share} of the script of {language!r}")
    gap = _PLACEHOLDER.search(text)
    if gap:
        yield Remark("placeholder", f"the {side} holds {gap.group()}")
    refusal = _REFUSAL.search(text)
    if refusal:
        yield Remark("refusal", f"the {side} says {refusal.group()!r}")
    if word_count(text) > MOST_WORDS or len(text) > MOST_CHARACTERS:
        lengths = f"{word_count(text):.0f} words, {len(text)} characters"
        yield Remark("too_long", f"the {side} has {lengths}")


def _is_control(character: str) -> bool:
    kind = unicodedata.category(character)
    return (kind[0] == "C" or kind in ("Zl", "Zp")) and character not in _SPACES + _JOINERS
