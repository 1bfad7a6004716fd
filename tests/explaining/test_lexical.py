"""The lexical baseline: it names planted words, and predicts from its line of text alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from explaining_windows import Q999, context, planted_feature
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safesail.explaining import explain_lexically, simulate_lexically
from safesail.explaining._words import words_of


def test_words_are_rebuilt_from_tokens() -> None:
    tokens = [
        "He",
        " stab",
        "bed",
        " the",
        " man",
        "'s",
        " well-",
        "known",
        " dog",
        ".",
        "\n",
        "Ki",
        "LL",
    ]
    words = words_of(tokens)
    assert [(word.text, word.first, word.last) for word in words] == [
        ("he", 0, 0),
        ("stabbed", 1, 2),
        ("the", 3, 3),
        ("man's", 4, 5),
        ("well-known", 6, 7),
        ("dog", 8, 8),
        ("kill", 11, 12),
    ]


def test_scripts_without_spaces_are_read_by_character() -> None:
    assert [word.text for word in words_of(["他杀", "了人", "。"])] == ["他", "杀", "了", "人"]


@given(st.lists(st.text(max_size=6), max_size=12))
def test_every_word_lies_in_its_tokens(tokens: list[str]) -> None:
    for word in words_of(tokens):
        assert 0 <= word.first <= word.last < len(tokens)
        assert word.text in "".join(tokens[word.first : word.last + 1]).casefold()


def test_planted_words_are_named_and_nothing_else() -> None:
    evidence = planted_feature()
    line = explain_lexically(evidence.to_explain(), Q999)
    assert line.startswith('lexical: at "')
    assert '"murder"' in line
    assert '"stabbed"' in line
    for silent in ("murderous", "mysteries", "the", "people"):
        assert f'"{silent}"' not in line


def test_anticipated_words_are_named_as_such() -> None:
    line = explain_lexically(planted_feature(anticipates=True).to_explain(), Q999)
    assert line.startswith('lexical: before "')
    assert '"murder"' in line
    assert '"stabbed"' in line


@pytest.mark.parametrize("anticipates", [False, True])
def test_simulation_follows_the_truth_on_unseen_windows(anticipates: bool) -> None:
    evidence = planted_feature(anticipates=anticipates)
    line = explain_lexically(evidence.to_explain(), Q999)
    contexts = evidence.to_score()
    simulated = simulate_lexically(line, contexts)
    true = np.concatenate([one.activations for one in contexts])
    assert stats.pearsonr(np.concatenate(simulated), true).statistic > 0.7


def test_window_topic_is_named_as_near() -> None:
    """A word that comes with activity elsewhere in the window says so."""
    rng = random.Random(1)
    contexts = []
    for number in range(40):
        words = [" " + rng.choice("abcdefghij") + "x" for _ in range(12)]
        values = [0.0] * 12
        if number % 2:
            words[0] = " war"
            values = [0.0] * 4 + [Q999 * rng.uniform(0.4, 1) for _ in range(8)]
        kind = "active" if number % 2 else "silent"
        contexts.append(context(words, values, kind=kind, document=str(number)))
    assert 'near "war"' in explain_lexically(contexts, Q999)


def test_the_figures_are_shrunken_means() -> None:
    """Nine sightings at full strength and one pseudo-sighting of silence: 0.9."""
    contexts = [
        context([" go", " kill", f" w{n}"], [0, Q999, 0], document=str(n)) for n in range(9)
    ] + [
        context([" go", f" v{n}", f" u{n}"], [0, 0, 0], kind="silent", document=f"s{n}")
        for n in range(9)
    ]
    assert explain_lexically(contexts, Q999) == 'lexical: at "kill" (0.90)'


def test_simulation_reads_nothing_but_the_line() -> None:
    line = 'lexical: at "kill" (0.92), "stab" (0.71); before "victim" (0.44); near "blood" (0.30)'
    windows = [
        context([" Kill", " the", " vic", "tim", " now"], [0.0] * 5),
        context([" blood", " and", " st", "ab"], [0.0] * 4),
        context([" nothing", "."], [9.0, 9.0]),
    ]
    first, second, third = simulate_lexically(line, windows)
    np.testing.assert_allclose(first, [9.2, 4.4, 0, 0, 0])
    np.testing.assert_allclose(second, [3.0, 3.0, 7.1, 7.1])
    np.testing.assert_allclose(third, [0, 0])


def test_what_stands_out_nowhere_is_said() -> None:
    contexts = [
        context([f" w{n}"], [Q999 * (n % 2)], kind="active" if n % 2 else "silent", document=str(n))
        for n in range(10)
    ]
    line = explain_lexically(contexts, Q999)
    assert line == "lexical: no word stands out"
    assert not np.concatenate(simulate_lexically(line, contexts)).any()


@pytest.mark.parametrize("text", ["It fires at kill.", 'lexical: often "kill" (0.92)', "lexical: "])
def test_other_text_is_no_lexical_explanation(text: str) -> None:
    with pytest.raises(ValueError, match="no lexical explanation"):
        simulate_lexically(text, [])


@settings(max_examples=20)
@given(st.randoms())
def test_order_of_contexts_does_not_matter(rng: random.Random) -> None:
    contexts = planted_feature().to_explain()
    expected = explain_lexically(contexts, Q999)
    rng.shuffle(contexts)
    assert explain_lexically(contexts, Q999) == expected


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(
            st.sampled_from([" kill", "kill", ' "a"', " (b)", "; ", " 杀", "x_y", "é", "", "I'm"]),
            min_size=1,
            max_size=8,
        ),
        min_size=2,
        max_size=12,
    )
)
def test_every_explanation_can_be_simulated(windows: list[list[str]]) -> None:
    contexts = [
        context(tokens, [Q999 * ("kill" in token) for token in tokens], document=str(number))
        for number, tokens in enumerate(windows)
    ]
    line = explain_lexically(contexts, Q999)
    assert line.count('"') <= 24
    simulated = simulate_lexically(line, contexts)
    for one, window in zip(simulated, contexts, strict=True):
        assert one.shape == (len(window.tokens),)
        assert ((one >= 0) & (one <= 10)).all()
    scaled = [replace(c, activations=[2 * a for a in c.activations]) for c in contexts]
    assert explain_lexically(scaled, 2 * Q999) == line
