"""Segments by hand in several scripts, and their rules as properties."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safesail.explaining._segments import LEAST_TOKENS, MOST_TOKENS, segments


def cut(tokens: list[str]) -> list[str]:
    return ["".join(tokens[first:end]) for first, end in segments(tokens)]


def of_words(text: str) -> list[str]:
    """Tokens of an English text: words with the space before them, marks alone."""
    return re.findall(r" ?[a-zA-Z]+|[.,]", f" {text}")


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (
            of_words("The cat sat down, the dog barked. Nobody came."),
            [" The cat sat down,", " the dog barked.", " Nobody came."],
        ),
        (
            list("今天天气很好，我们去公园玩。但是下雨了！"),
            ["今天天气很好，", "我们去公园玩。", "但是下雨了！"],
        ),
        (
            [*list("他说："), " this", " is", " fine", "，", *list("然后走了。")],
            ["他说：", " this is fine，", "然后走了。"],
        ),
        # A conjunction cuts a clause that is long enough, not a short one.
        (
            of_words("the old man walked to the market and he sold his horse"),
            [" the old man walked to the market", " and he sold his horse"],
        ),
        (of_words("bread and butter taste good"), [" bread and butter taste good"]),
        # No punctuation: cut evenly. Punctuation only: as few as may be.
        (["a"] * 32, ["a" * 10, "a" * 11, "a" * 11]),
        ([".", ",", "!", "?"], [".,!?"]),
        # Marks inside figures and names end nothing, closing quotes belong to what they close.
        (
            [" it", " costs", " 3", ".", "5", " pounds", " at", " x", ".", "com"],
            [" it costs 3.5 pounds at x.com"],
        ),
        (
            [" she", " said", " no", ".", "”", " He", " left", " us", "\n", "Then", " it", " was"],
            [" she said no.”", " He left us\n", "Then it was"],
        ),
        (["one", " two"], ["one two"]),
        ([], []),
    ],
)
def test_by_hand(tokens: list[str], expected: list[str]) -> None:
    assert cut(tokens) == expected


tokens = st.lists(
    st.sampled_from(["a", " b", ".", ",", "。", "，", "\n", " and", "但", "”", " ", "", "3", "!?"])
    | st.text(max_size=3),
    max_size=60,
)


@given(tokens)
@example([","] * 25)
def test_segments_tile_the_window_and_keep_their_size(tokens: list[str]) -> None:
    spans = segments(tokens)
    assert [first for first, _ in spans] == [0, *[end for _, end in spans[:-1]]][: len(spans)]
    assert (spans[-1][1] if spans else 0) == len(tokens)
    if len(tokens) >= LEAST_TOKENS:
        assert all(LEAST_TOKENS <= end - first <= MOST_TOKENS for first, end in spans)
    else:
        assert len(spans) == min(1, len(tokens))
