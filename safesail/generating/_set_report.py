"""What tells the sides apart over a whole set of pairs, without any understanding.

The null hypothesis is the same throughout: which side of a pair is called positive is a toss. The
chance figures come from swapping sides within pairs, so vocabulary, lengths and the likeness of
twins stay as they are. That a word stands out need not be a fault (texts about a killing speak of
killing), but a set that a word tells apart finds features that follow that word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import binomtest
from sklearn import config_context
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from safesail.generating._pairs import CheckedPair, Remark
from safesail.generating._texts import terms, word_count, words

Integers = NDArray[np.int64]

_SWAPS = 2000
_CLASSIFIER_SWAPS = 100
_FOLDS = 5
_FEWEST_FOR_CLASSIFIER = 10
# In fewer pairs, a word in most positives and no twin says nothing.
_FEWEST_FOR_GIVEAWAY = 5
_MOST_GIVEAWAYS = 10
# In large sets a term can be beyond chance and yet tell next to nothing: net one pair in ten.
_LEAST_ACCURACY = 0.55


@dataclass(frozen=True)
class Telltale:
    """A word, or two neighbouring words, as a classifier of sides.

    Attributes:
        term: the word or words, normalised.
        positives: positives that hold it.
        negatives: twins that hold it.
        balanced_accuracy: mean of the shares of positives and of twins that it gets right, pooled
            over pairs, in the direction that is right more often: 0.5 to 1.
    """

    term: str
    positives: int
    negatives: int
    balanced_accuracy: float

    def tells(self, pair: CheckedPair) -> bool:
        """Whether this pair's sides are told apart by it, in its own direction."""
        here, there = self.term in terms(pair.positive), self.term in terms(pair.negative)
        return here != there and here == (self.positives > self.negatives)


@dataclass(frozen=True)
class SetReport:
    """What words and lengths alone say of a set of pairs.

    Attributes:
        pairs: number of pairs.
        best: the term that tells the sides apart best; None where no term is in two pairs or more.
        best_by_chance: what the balanced accuracy of the best term stays below with a probability
            of 0.95 when sides are swapped at random.
        giveaways: terms, best first and at most ten, that exceed that and 0.55, or that are in
            most positives and in no twin (of five pairs or more).
        word_accuracy: accuracy of a logistic regression on which words occur, cross-validated with
            both texts of a pair in one fold; None for fewer than ten pairs.
        word_accuracy_low, word_accuracy_high: where 95 % of accuracies are when sides are swapped
            at random, a hundred times.
        longer, shorter: pairs whose positive has more, or fewer, words than its twin.
        length_p_value: of the two-sided sign test on them; None where all are equally long.
    """

    pairs: int
    best: Telltale | None
    best_by_chance: float | None
    giveaways: tuple[Telltale, ...]
    word_accuracy: float | None
    word_accuracy_low: float | None
    word_accuracy_high: float | None
    longer: int
    shorter: int
    length_p_value: float | None

    def flag(self, pair: CheckedPair) -> CheckedPair:
        """A pair, flagged where giveaways tell its sides apart."""
        found = [f"{telltale.term!r}" for telltale in self.giveaways if telltale.tells(pair)]
        if not found:
            return pair
        return pair.flagged(Remark("giveaway", f"{', '.join(found)} tells sides apart"))


def report_on(pairs: Sequence[CheckedPair], *, seed: int = 0) -> SetReport:
    """Measure how far words and lengths alone tell positives from their twins.

    Args:
        pairs: the set.
        seed: of the swaps and the folds.
    """
    best, by_chance, giveaways = _telltales(pairs, np.random.default_rng(seed))
    accuracy, low, high = _word_accuracy(pairs, np.random.default_rng(seed))
    differences = [word_count(pair.positive) - word_count(pair.negative) for pair in pairs]
    longer, shorter = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    unequal = longer + shorter
    return SetReport(
        pairs=len(pairs),
        best=best,
        best_by_chance=by_chance,
        giveaways=giveaways,
        word_accuracy=accuracy,
        word_accuracy_low=low,
        word_accuracy_high=high,
        longer=longer,
        shorter=shorter,
        length_p_value=float(binomtest(longer, unequal).pvalue) if unequal else None,
    )


def _telltales(
    pairs: Sequence[CheckedPair], generator: np.random.Generator
) -> tuple[Telltale | None, float | None, tuple[Telltale, ...]]:
    vectorizer = CountVectorizer(analyzer=terms, binary=True)
    if not pairs:
        return None, None, ()
    texts = [pair.positive for pair in pairs] + [pair.negative for pair in pairs]
    counts = vectorizer.fit_transform(texts).astype(np.int64)
    positive, negative = counts[: len(pairs)], counts[len(pairs) :]
    difference = csr_matrix(positive - negative)
    # A term that tells one pair alone is no pattern, and leaving those out makes the rest small.
    often = np.flatnonzero(np.asarray(abs(difference).sum(axis=0)).ravel() > 1)
    if not often.size:
        return None, None, ()
    difference = difference[:, often]
    names = vectorizer.get_feature_names_out()[often]
    found = [
        Telltale(str(name), int(here), int(there), 0.5 + abs(int(here) - int(there)) / _two(pairs))
        for name, here, there in zip(
            names, _column_sums(positive[:, often]), _column_sums(negative[:, often]), strict=True
        )
    ]
    # Of equals the single word first, and then by the alphabet.
    found.sort(key=lambda one: (-one.balanced_accuracy, " " in one.term, one.term))
    signs = generator.choice(np.array([-1, 1]), size=(_SWAPS, len(pairs)))
    extremes = [abs(difference.T @ part.T).max(axis=0) for part in np.array_split(signs, 20)]
    by_chance = 0.5 + float(np.quantile(np.concatenate(extremes), 0.95)) / _two(pairs)
    return found[0], by_chance, _giveaways(found, by_chance, len(pairs))


def _giveaways(found: list[Telltale], by_chance: float, pairs: int) -> tuple[Telltale, ...]:
    chosen: list[Telltale] = []
    for one in found:
        plain = pairs >= _FEWEST_FOR_GIVEAWAY and 2 * one.positives > pairs and not one.negatives
        beyond_chance = one.balanced_accuracy > max(by_chance, _LEAST_ACCURACY)
        # Two words say nothing that one of them, found before, does not say better.
        within = any(other.term in one.term.split() for other in chosen)
        if (plain or beyond_chance) and not within:
            chosen.append(one)
    return tuple(chosen[:_MOST_GIVEAWAYS])


def _column_sums(matrix: csr_matrix) -> Integers:
    return np.asarray(matrix.sum(axis=0)).ravel()


def _two(pairs: Sequence[CheckedPair]) -> int:
    return 2 * len(pairs)


def _word_accuracy(
    pairs: Sequence[CheckedPair], generator: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    if len(pairs) < _FEWEST_FOR_CLASSIFIER:
        return None, None, None
    texts = [text for pair in pairs for text in (pair.positive, pair.negative)]
    # Not sparse: a fit on so few texts takes half the time so.
    counts = CountVectorizer(analyzer=words, binary=True).fit_transform(texts).toarray()
    counts = counts.astype(float)
    fold_of_pair = generator.permutation(len(pairs)) % _FOLDS
    held_out = [np.flatnonzero(fold_of_pair.repeat(2) == fold) for fold in range(_FOLDS)]
    trained_on = [np.flatnonzero(fold_of_pair.repeat(2) != fold) for fold in range(_FOLDS)]
    parts = [(counts[t], t, counts[h], h) for t, h in zip(trained_on, held_out, strict=True)]

    def accuracy(labels: Integers) -> float:
        right = 0
        for training, trained, testing, tested in parts:
            model = LogisticRegression(solver="liblinear").fit(training, labels[trained])
            right += int((model.predict(testing) == labels[tested]).sum())
        return right / len(labels)

    sides = np.tile(np.array([1, 0]), len(pairs))
    swaps = generator.integers(0, 2, size=(_CLASSIFIER_SWAPS, len(pairs))).repeat(2, axis=1)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        found = accuracy(sides)
        by_chance = [accuracy(sides ^ swap) for swap in swaps]
    low, high = np.quantile(by_chance, [0.025, 0.975])
    return found, float(low), float(high)
