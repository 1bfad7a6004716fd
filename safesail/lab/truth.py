"""What a feature, or a word list, knows of the planted concepts, measured on held-out clauses.

A clause's score by a feature is the feature's largest activation over the clause's content tokens
(first to last, punctuation included, tokenized within its document). The truth is the clause's
planted concept; positives are clauses of any child, negatives are all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safesail.lab.activations import TokenTable
from safesail.lab.documents import Document

Floats = NDArray[np.floating[Any]]


def clause_concepts(documents: Sequence[Document]) -> list[str]:
    """The child path (or empty) of every clause, documents in order."""
    return [clause.concept for document in documents for clause in document.clauses]


def carries(concepts: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    """Boolean [clauses, names]: which clauses carry which concept (a parent or a child path)."""
    return np.array(
        [[path == name or path.startswith(f"{name}/") for name in names] for path in concepts]
    )


def clause_of_token(documents: Sequence[Document], table: TokenTable) -> NDArray[np.int64]:
    """Index of the clause [tokens] in which each token's last character lies."""
    firsts = np.cumsum([0, *(len(document.clauses) for document in documents)])
    ends = [np.array([clause.end for clause in document.clauses]) for document in documents]
    return np.array(
        [
            firsts[document] + np.searchsorted(ends[document], last, side="right")
            for document, last in zip(table.document, table.last, strict=True)
        ],
        dtype=np.int64,
    )


def pool_by_clause(
    activations: Tensor, clause: NDArray[np.int64], count: int, content: Tensor
) -> Floats:
    """Largest activation of each feature over each clause's content tokens.

    `activations` is [tokens, features], non-negative, `clause` and `content` are [tokens]; the
    result is [count, features], 0 where a clause has no content token.
    """
    rows = torch.from_numpy(clause)[content]
    values = activations[content]
    pooled = torch.zeros(count, activations.shape[1])
    index = rows[:, None].expand_as(values)
    return pooled.scatter_reduce(0, index, values, "amax").numpy()


@torch.inference_mode()
def clause_scores(
    autoencoder: Any, activations: Tensor, clause: NDArray[np.int64], count: int, content: Tensor
) -> Floats:
    """Clause scores [count, width] of every feature from hidden states [tokens, d_model]."""
    return pool_by_clause(autoencoder.encode(activations), clause, count, content)


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Average precision [features, concepts] of scores [clauses, features]; ties are one threshold.

    `positive` is [clauses, concepts]. AP = sum over thresholds of (gain in recall) x precision, as
    in scikit-learn, but each feature is sorted once for all concepts: one scikit-learn call for
    each feature and concept takes minutes.

    Raises ValueError when a concept has no positive clause.
    """
    if not positive.any(axis=0).all():
        raise ValueError("average precision needs at least one positive clause of each concept")
    rows = np.arange(len(scores))
    result = np.empty((scores.shape[1], positive.shape[1]))
    for feature in range(scores.shape[1]):
        order = np.argsort(-scores[:, feature], kind="stable")
        ranked = scores[order, feature]
        closes = np.append(ranked[:-1] != ranked[1:], True)
        # For each row the last row of its group of ties: the nearest closing row from it on.
        closing = rows[closes][np.cumsum(closes) - closes]
        hits = positive[order]
        precision = np.cumsum(hits, axis=0)[closing] / (closing + 1)[:, None]
        result[feature] = (precision * hits).sum(axis=0) / hits.sum(axis=0)
    return result


@dataclass(frozen=True, slots=True)
class BestFeature:
    """The feature with the largest average precision for a concept, and that precision."""

    feature: int
    average_precision: float


def best_features(
    scores: Floats, concepts: Sequence[str], names: Sequence[str]
) -> dict[str, BestFeature]:
    """For each concept of `names` the best feature of clause scores [clauses, features]."""
    precision = average_precision(scores, carries(concepts, names))
    return {
        name: BestFeature(int(column.argmax()), float(column.max()))
        for name, column in zip(names, precision.T, strict=True)
    }


def word_list_scores(documents: Sequence[Document], words: Sequence[str]) -> Floats:
    """How many of `words` (or phrases) stand in each clause [clauses], documents in order."""
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    return np.array(
        [
            len(pattern.findall(document.text[clause.start : clause.end]))
            for document in documents
            for clause in document.clauses
        ],
        dtype=np.float64,
    )
