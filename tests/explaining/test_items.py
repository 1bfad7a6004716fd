"""Items: what they show, what they hide, and how they are drawn."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from explaining_windows import Q999, context, planted_feature
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safesail.explaining import FeatureEvidence
from safesail.explaining._items import draw_items, prompt_sizes

_ITEM = re.compile(r"([^⟪⟫]*)⟪([^⟪⟫]+)⟫")


def feature(
    active: int = 50, silent: int = 25, hard_silent: int = 25, number: int = 7
) -> FeatureEvidence:
    """Windows of 32 numbered tokens with one active token at a random place."""
    rng = np.random.default_rng(number)
    kinds = [("active", 1 + place % 10) for place in range(active)]
    kinds += [("silent", 0)] * silent + [("hard_silent", 0)] * hard_silent
    contexts = []
    for document, (kind, level) in enumerate(kinds):
        values = np.zeros(32)
        if kind == "active":
            values[rng.integers(32)] = level
        tokens = [f" {place}" for place in range(32)]
        contexts.append(
            context(tokens, values.tolist(), kind=kind, level=level, document=str(document))
        )
    return FeatureEvidence("sae", 3, number, Q999, [], contexts, "collected")


def test_prompts_are_planned_by_the_windows_there_are() -> None:
    assert prompt_sizes(100) == [56, 40]
    assert prompt_sizes(200) == [56, 40, 40, 40]
    assert prompt_sizes(108) == [56, 40, 12]
    assert prompt_sizes(10) == [10]
    assert prompt_sizes(100, prompts=3) == [33, 33, 33]
    assert prompt_sizes(500, prompts=3) == [40, 40, 40]
    assert prompt_sizes(2, prompts=3) == [1, 1]


def test_every_prompt_has_the_same_make_up() -> None:
    for items in draw_items(feature(), [40, 40, 20], seed=0):
        share = Counter(item.context.kind for item in items)
        assert share["active"] == len(items) / 2
        assert share["silent"] == share["hard_silent"] == len(items) / 4
        levels = Counter(item.context.level for item in items if item.context.kind == "active")
        assert len(levels) == 10
        assert max(levels.values()) - min(levels.values()) <= 1


@settings(max_examples=30)
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(0, 60),
    st.lists(st.integers(1, 50), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_windows_are_drawn_once_and_every_window_can_be(
    active: int, silent: int, hard_silent: int, sizes: list[int], seed: int
) -> None:
    evidence = feature(active, silent, hard_silent)
    drawn = [item.context for items in draw_items(evidence, sizes, seed) for item in items]
    documents = [one.document for one in drawn]
    assert len(set(documents)) == len(documents)
    assert len(drawn) == min(sum(sizes), len(evidence.contexts))
    # Kinds that lack windows are used up.
    used = Counter(one.kind for one in drawn)
    for kind, there, share in (("active", active, 0.5), ("silent", silent, 0.25)):
        assert used[kind] >= min(there, int(share * len(drawn)) - 1)


def test_the_draw_depends_on_seed_and_name_alone() -> None:
    evidence = feature()
    shuffled = replace(evidence, contexts=evidence.contexts[::-1])
    assert draw_items(evidence, [40], 0) == draw_items(shuffled, [40], 0)
    assert draw_items(evidence, [40], 0) != draw_items(evidence, [40], 1)


def test_a_segment_holds_the_peak_and_says_its_truth() -> None:
    for item in draw_items(planted_feature(), [100], seed=0)[0]:
        left, segment = _ITEM.fullmatch(item.text).groups()
        text = "".join(item.context.tokens)
        assert left + segment in text
        if item.context.kind == "active":
            assert item.truth == item.context.peak
            assert item.context.tokens[item.context.peak_at] in segment
        else:
            assert item.truth == 0


def test_six_tokens_and_at_most_six_before_them() -> None:
    for item in draw_items(feature(), [100], seed=0)[0]:
        left, segment = _ITEM.fullmatch(item.text).groups()
        places = [int(word) for word in segment.split()]
        assert places == list(range(places[0], places[0] + 6))
        before = [int(word) for word in left.split()]
        assert before == list(range(max(0, places[0] - 6), places[0]))


def test_the_place_of_a_segment_tells_nothing() -> None:
    starts: dict[bool, list[int]] = {True: [], False: []}
    within = []
    for number in range(30):
        for item in draw_items(feature(number=number), [100], seed=0)[0]:
            start = int(_ITEM.fullmatch(item.text)[2].split()[0])
            starts[item.context.kind == "active"].append(start)
            if item.context.kind == "active" and 5 <= item.context.peak_at <= 26:
                within.append(item.context.peak_at - start)
    assert stats.ks_2samp(starts[True], starts[False]).pvalue > 0.01
    assert stats.chisquare(np.bincount(within, minlength=6)).pvalue > 0.01


@pytest.mark.parametrize("token", ["⟪", "⟫", " a⟫ b⟪"])
def test_marks_cannot_be_forged(token: str) -> None:
    evidence = feature()
    contexts = [replace(one, tokens=[token] * 32) for one in evidence.contexts]
    for item in draw_items(replace(evidence, contexts=contexts), [40], seed=0)[0]:
        assert _ITEM.fullmatch(item.text)
        assert item.text.count("⟪") == item.text.count("⟫") == 1


def test_short_windows_are_whole_segments() -> None:
    evidence = feature()
    short = [
        replace(one, tokens=["a", "b"], activations=[0.0, one.peak], peak_at=1)
        for one in evidence.contexts
    ]
    for item in draw_items(replace(evidence, contexts=short), [40], seed=0)[0]:
        assert item.text == "⟪ab⟫"
        assert item.truth == item.context.peak
