"""Clause-level average precision, pooling and word lists against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from safesail.lab.activations import TokenTable, content_mask
from safesail.lab.documents import Clause, Document
from safesail.lab.truth import (
    average_precision,
    best_features,
    carries,
    clause_of_token,
    pool_by_clause,
    word_list_scores,
)

TEXT = "He shot her, and ran off. It rained."
DOCUMENT = Document(
    "d",
    TEXT,
    (
        Clause(0, 12, "violence/murder", "concept"),
        Clause(13, 25, "", "neutral"),
        Clause(26, 36, "", "neutral"),
    ),
)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_average_precision_agrees_with_sklearn(decimals: int) -> None:
    """Few decimals make many ties, as silent features do."""
    random = np.random.default_rng(decimals)
    scores = np.maximum(random.normal(size=(300, 12)), 0).round(decimals)
    positive = random.random((300, 3)) < [0.05, 0.3, 0.9]
    expected = [
        [average_precision_score(positive[:, concept], scores[:, feature]) for concept in range(3)]
        for feature in range(12)
    ]
    np.testing.assert_allclose(average_precision(scores, positive), expected, rtol=1e-12)


def test_average_precision_without_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one positive"):
        average_precision(np.ones((3, 1)), np.array([[True, False]] * 3))


def test_carries_takes_children_but_not_namesakes() -> None:
    paths = ["drugs/using", "drugs_old/using", "", "drugs/dealing"]
    parent, child = carries(paths, ["drugs", "drugs/using"]).T
    assert parent.tolist() == [True, False, False, True]
    assert child.tolist() == [True, False, False, False]


def test_tokens_belong_to_the_clause_of_their_last_character() -> None:
    # The spans of "He", " shot", " her", ",", " and", " ran off", ".", " It", " rained."
    last = np.array([1, 6, 10, 11, 15, 23, 24, 27, 35])
    two = TokenTable([], np.repeat([0, 1], 9), np.tile(last, 2))
    expected = [0, 0, 0, 0, 1, 1, 1, 2, 2]
    clause = clause_of_token([DOCUMENT, DOCUMENT], two)
    assert clause.tolist() == expected + [index + 3 for index in expected]


def test_pooling_takes_the_maximum_over_content_tokens() -> None:
    activations = torch.tensor([[1.0, 0.0], [9.0, 0.0], [2.0, 3.0], [4.0, 0.0]])
    content = torch.tensor([True, False, True, True])
    pooled = pool_by_clause(activations, np.array([0, 0, 0, 2]), 3, content)
    assert pooled.tolist() == [[2.0, 3.0], [0.0, 0.0], [4.0, 0.0]]


def test_best_feature_is_the_one_that_separates() -> None:
    scores = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 0.0], [0.0, 0.0]])
    best = best_features(scores, ["a/x", "a/y", "b/z", ""], ["a", "b"])
    assert (best["a"].feature, best["a"].average_precision) == (1, 1.0)
    assert (best["b"].feature, best["b"].average_precision) == (0, 1.0)


def test_word_list_counts_whole_words_per_clause() -> None:
    assert word_list_scores([DOCUMENT], ["shot", "ran off", "rain"]).tolist() == [1, 1, 0]


def test_sinks_are_tokens_above_eight_medians() -> None:
    activations = torch.ones(9, 4)
    activations[3] *= 7.9
    activations[5] *= 8.1
    assert content_mask(activations).tolist() == [index != 5 for index in range(9)]
