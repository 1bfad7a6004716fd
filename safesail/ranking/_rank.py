"""The stage `rank`: candidates in, rows of the rankings and features tables out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safesail.concepts import ConceptSet
from safesail.corpus import Corpus
from safesail.language_model import LanguageModel
from safesail.ranking._design import PairDesign
from safesail.ranking._groups import Refused, observe_candidates
from safesail.ranking._rows import feature_rows, ranking_row, refused_rows
from safesail.ranking._score import score_candidate
from safesail.sparse_autoencoder import Candidate
from safesail.study import RankingSettings


@dataclass
class RankedCandidate:
    """One candidate's rows, before it is compared with the others."""

    rows: list[dict[str, Any]]
    features: list[dict[str, Any]]


def score_candidates(
    model: LanguageModel,
    candidates: Sequence[Candidate],
    concepts: ConceptSet,
    corpus: Corpus,
    settings: RankingSettings,
    *,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Iterator[RankedCandidate]:
    """Score every candidate on every concept, yielding each as it is done.

    A candidate that cannot be read or does not fit the model is refused by name, in its own rows;
    the others are still scored. Candidates of one BOS rule and context size share one model pass.

    Args:
        model: the language model.
        candidates: SAEs to compare.
        concepts: all concepts; each is judged against the texts of the others.
        corpus: its first `sample_tokens` tokens give q999 and health.
        settings: margin, pooling, rates, seed.
        progress: wraps an iterable with a label.

    Raises:
        InputError: the corpus is empty, or a pair's text has no tokens.
        StorageError: candidates do not fit in memory together, nor activations on the disk.
    """
    design = PairDesign.of(concepts, settings.seed)
    for found in observe_candidates(model, candidates, design, corpus, settings, progress=progress):
        if isinstance(found, Refused):
            yield RankedCandidate(refused_rows(found, concepts), [])
        elif not np.isfinite(found.pooled).all():
            candidate = next(one for one in candidates if one.name == found.sae.name)
            refused = Refused(candidate, "activations on the pairs' texts are NaN or infinite")
            yield RankedCandidate(refused_rows(refused, concepts), [])
        else:
            scores = score_candidate(found.pooled, found.q999(), design, settings)
            yield RankedCandidate(
                [ranking_row(found, score) for score in scores], feature_rows(found, scores)
            )
