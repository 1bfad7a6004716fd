"""What words and lengths alone tell, against counts by hand, every swap, and scikit-learn."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import writing_judge
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline

from safesail.generating import CheckedPair, report_on


def invented(count: int, seed: int = 0) -> list[CheckedPair]:
    """Pairs of invented words that no word tells apart."""
    generator = random.Random(seed)
    return [CheckedPair(**writing_judge.texts(generator)) for _ in range(count)]


def with_word(pairs: list[CheckedPair], word: str, numbers: range) -> list[CheckedPair]:
    """The pairs, some positives of which end in a word."""
    return [
        CheckedPair(f"{pair.positive} {word}", f"{pair.negative} und")
        if number in numbers
        else pair
        for number, pair in enumerate(pairs)
    ]


def test_best_word_is_counted_over_all_pairs() -> None:
    pairs = [
        CheckedPair("Steal the bread", "Bake the bread"),
        CheckedPair("They steal, and steal again", "They dance again"),
        CheckedPair("A rude man", "A rude steal"),
        CheckedPair("Stealing is wrong", "Baking is right"),  # another word
    ]
    best = report_on(pairs).best
    assert best is not None
    assert (best.term, best.positives, best.negatives) == ("steal", 2, 1)
    # Half of the positives hold it, three quarters of the twins do not.
    assert best.balanced_accuracy == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_a_word_of_the_twins_tells_the_sides_apart_too() -> None:
    pairs = [CheckedPair(p.negative, p.positive) for p in with_word(invented(6), "kill", range(6))]
    report = report_on(pairs)
    assert report.best is not None
    assert (report.best.positives, report.best.negatives) in {(0, 6), (6, 0)}
    assert report.best.balanced_accuracy == 1.0


def test_chance_is_that_of_all_swaps_of_sides() -> None:
    """2 to the 9th sets, each with its best term by hand, against the random swaps."""
    vocabulary = ["ape", "bee", "cat", "dog"]
    generator = random.Random(3)
    pairs = [
        CheckedPair(
            " or ".join(generator.sample(vocabulary, 2)),
            " or ".join(generator.sample(vocabulary, 2)),
        )
        for _ in range(9)
    ]

    def grams(text: str) -> set[str]:
        found = text.split()
        return {*found, *map(" ".join, itertools.pairwise(found))}

    every_term = set().union(*(grams(text) for p in pairs for text in (p.positive, p.negative)))
    best = []
    for swaps in itertools.product([False, True], repeat=len(pairs)):
        net = dict.fromkeys(every_term, 0)
        for pair, swap in zip(pairs, swaps, strict=True):
            sides = grams(pair.positive), grams(pair.negative)
            here, there = reversed(sides) if swap else sides
            for term in here - there:
                net[term] += 1
            for term in there - here:
                net[term] -= 1
        best.append(0.5 + max(map(abs, net.values())) / (2 * len(pairs)))
    found = report_on(pairs)
    assert found.best is not None
    assert found.best.balanced_accuracy == pytest.approx(best[0])
    # Quantiles of a few possible values: the true one, or a neighbour where it is near the edge.
    assert found.best_by_chance is not None
    assert np.quantile(best, 0.92) <= found.best_by_chance <= np.quantile(best, 0.98)


def test_a_giveaway_is_named_and_only_its_pairs_are_flagged() -> None:
    pairs = with_word(invented(30), "kill", range(12))
    report = report_on(pairs)
    # The word of the other side is as telling.
    assert {one.term for one in report.giveaways} == {"kill", "und"}
    flagged = [report.flag(pair) for pair in pairs]
    assert [bool(pair.flags) for pair in flagged] == [True] * 12 + [False] * 18
    assert str(flagged[0].flags[0]) == "giveaway: 'kill', 'und' tells sides apart"
    assert all(pair.passed for pair in flagged)


def test_two_words_are_named_where_neither_alone_tells() -> None:
    pairs = [
        CheckedPair(f"{pair.positive} break in film", f"{pair.negative} in film break")
        for pair in invented(30)
    ]
    report = report_on(pairs)
    assert {one.term for one in report.giveaways} == {"break in", "film break"}


def test_few_pairs_still_name_a_word_of_most_positives_and_no_twin() -> None:
    pairs = with_word(invented(5), "kill", range(4))
    report = report_on(pairs)
    assert report.best_by_chance is not None
    assert "kill" in {one.term for one in report.giveaways}
    assert report.word_accuracy is None


def test_sets_without_a_telling_word_name_none() -> None:
    for seed in range(5):
        report = report_on(invented(9, seed))
        assert report.giveaways == ()
        assert (report.best is None) == (report.best_by_chance is None)


def test_word_accuracy_is_scikit_learns() -> None:
    pairs = with_word(invented(24), "kill", range(16))
    report = report_on(pairs, seed=5)
    folds = np.random.default_rng(5).permutation(len(pairs)) % 5
    classifier = make_pipeline(
        CountVectorizer(token_pattern=r"\S+", binary=True), LogisticRegression(solver="liblinear")
    )
    texts = [text for pair in pairs for text in (pair.positive, pair.negative)]
    scores = cross_val_score(
        classifier, texts, [1, 0] * len(pairs), cv=PredefinedSplit(folds.repeat(2))
    )
    weights = np.bincount(folds)
    assert report.word_accuracy == pytest.approx(np.average(scores, weights=weights))
    assert report.word_accuracy_low is not None
    assert report.word_accuracy_high is not None
    assert report.word_accuracy_low < 0.5 < report.word_accuracy_high < report.word_accuracy


def test_lengths_are_put_to_the_sign_test() -> None:
    longer = [CheckedPair(f"{p.positive} more", p.negative) for p in invented(9)]
    shorter = [CheckedPair(p.positive, f"{p.negative} more") for p in invented(1, seed=1)]
    report = report_on([*longer, *shorter, *invented(3, seed=2)])
    assert (report.longer, report.shorter) == (9, 1)
    # Ten tosses, at least nine or at most one of a kind: 2 (10 + 1) of 1024.
    assert report.length_p_value == pytest.approx(22 / 1024)


def test_nothing_is_said_of_nothing() -> None:
    report = report_on([])
    assert (report.pairs, report.best, report.giveaways) == (0, None, ())
    assert report.length_p_value is None
    one = report_on([CheckedPair("You die", "You live")])
    assert (one.best, one.best_by_chance, one.length_p_value) == (None, None, None)
