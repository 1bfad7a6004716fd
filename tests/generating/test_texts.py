"""How texts are compared: what makes no difference, and what does."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safesail.generating._taken import TakenTexts
from safesail.generating._texts import jaccard, n_grams, normalised, terms, word_count, words

LETTERS = st.text(st.characters(categories=("Ll", "Lu", "Nd"), codec="latin-1"), min_size=1)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_the_form_of_characters_makes_no_other_text(text: str, form: str) -> None:
    assert normalised(unicodedata.normalize(form, text)) == normalised(text)  # type: ignore[arg-type]


@given(st.text())
def test_case_makes_no_other_text(text: str) -> None:
    assert normalised(text.casefold()) == normalised(text)


@given(st.lists(LETTERS, min_size=1), st.sampled_from([" ", "  ", "\n", ", ", "-", "... ", "。"]))
def test_spaces_and_punctuation_make_no_other_text(parts: list[str], joint: str) -> None:
    assert normalised(f"“{joint.join(parts)}”!") == normalised(" ".join(parts))


@given(st.lists(LETTERS, min_size=1), st.lists(LETTERS, min_size=1))
def test_other_words_make_another_text(first: list[str], second: list[str]) -> None:
    folded = [[normalised(word) for word in side] for side in (first, second)]
    assume(folded[0] != folded[1])
    assert normalised(" ".join(first)) != normalised(" ".join(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Café!", "CAFE\u0301"),
        ("Ｆｒａｕｄ", "fraud"),
        ("STRASSE", "straße"),
        ("ﬁre", "Fire"),
        ("He said: “No.”", "he said no"),
    ],
)
def test_known_equals(first: str, second: str) -> None:
    assert normalised(first) == normalised(second)


def test_marks_of_indic_scripts_are_kept() -> None:
    assert normalised("कि") != normalised("की")


def test_words_terms_and_lengths() -> None:
    assert words("Don't, he said") == ["don", "t", "he", "said"]
    assert words("他kill了") == ["他", "kill", "了"]
    assert terms("A b c") == ["a", "b", "c", "a b", "b c"]
    assert terms("") == []
    assert word_count("three plain words") == 3
    assert word_count("四个汉字 word") == 3


@given(st.text(), st.text())
def test_jaccard_is_that_of_the_sets(first: str, second: str) -> None:
    one, other = n_grams(first), n_grams(second)
    assert jaccard(one, other) == len(one & other) / len(one | other)
    assert n_grams("Abcd!") == {"abc", "bcd"}
    assert n_grams("ab") == {"ab"}


@given(st.lists(st.text("ab ", min_size=1, max_size=30), max_size=6), st.text("ab ", max_size=30))
def test_near_ones_are_found_whatever_their_sizes(others: list[str], text: str) -> None:
    """The index by size skips none that a plain comparison with all finds."""
    taken = TakenTexts()
    for number, other in enumerate(others):
        taken.add(other, f"pair {number}")
    found = taken.repeated(text, "positive")
    if normalised(text) in {normalised(other) for other in others}:
        assert found is not None
        assert found.reason == "duplicate"
    elif any(jaccard(n_grams(text), n_grams(other)) >= 0.8 for other in others):
        assert found is not None
        assert found.reason == "near_duplicate"
    else:
        assert found is None
