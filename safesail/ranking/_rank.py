"""The stage `rank`: candidates in, an ordered table and chosen features out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safesail.concepts import ConceptSet
from safesail.corpus import Corpus
from safesail.errors import CandidateError
from safesail.language_model import LanguageModel
from safesail.ranking._groups import Refused, observe_candidates
from safesail.ranking._health import judge_health
from safesail.ranking._observe import Observation
from safesail.ranking._score import (
    FEW_PAIRS_WARNING,
    LEVELS,
    NONE_CALLED_WARNING,
    ConceptScore,
    PairDesign,
    score_candidate,
)
from safesail.ranking._summary import CandidateLine, ConceptLine, candidate_line, concept_line
from safesail.sparse_autoencoder import Candidate
from safesail.study import RankingSettings
from safesail.tables import RANKINGS, table_from_rows

if TYPE_CHECKING:
    import pandas as pd

# Below this many tokens a 0.999 quantile rests on few values (DESIGN of q999).
ENOUGH_SAMPLE_TOKENS = 200_000
REFUSED = "refused: "
"""Begins the health of a candidate that could not be read or does not fit."""


@dataclass
class Ranking:
    """Result of the stage `rank`.

    Attributes:
        rows: one per candidate and concept, as in the rankings table, best candidate first.
        features: by candidate, rows as in the features table.
    """

    rows: list[dict[str, Any]]
    features: dict[str, list[dict[str, Any]]]

    def order(self, by: Sequence[str] = ()) -> list[str]:
        """Candidates that could be ranked, best first.

        Args:
            by: concepts whose mean rank orders; none means all top-level ones.
        """
        means: dict[str, float] = {}
        for row in self.rows:
            if row["mean_rank"] is not None:
                means[row["sae"]] = row["mean_rank"]
        if by:
            for name in means:
                ranks = [r["rank"] for r in self.rows if r["sae"] == name and r["concept"] in by]
                means[name] = float(np.mean([rank or len(means) for rank in ranks]))
        separation = {name: self._mean_separation(name, by) for name in means}
        return sorted(means, key=lambda name: (means[name], -separation[name], name))

    def _mean_separation(self, name: str, by: Sequence[str]) -> float:
        values = [
            row["separation_best"]
            for row in self.rows
            if row["sae"] == name and (row["concept"] in by if by else "/" not in row["concept"])
        ]
        finite = [value for value in values if value is not None and np.isfinite(value)]
        return float(np.mean(finite)) if finite else 0.0

    def best(self, layer: int | None = None, by: Sequence[str] = ()) -> str:
        """The best candidate, of all or of one layer.

        Raises:
            CandidateError: none there.
        """
        layers = {row["sae"]: row["layer"] for row in self.rows}
        order = self.order(by)
        for name in order:
            if layer is None or layers[name] == layer:
                return name
        known = ", ".join(map(str, sorted({layers[name] for name in order}))) or "none"
        raise CandidateError(f"no ranked candidate at layer {layer}; there are some at: {known}")

    def candidate_lines(
        self, by: Sequence[str] = (), layer: int | None = None
    ) -> list[CandidateLine]:
        """One line per ranked candidate, best first, over top-level concepts or those of `by`."""
        lines = []
        for name in self.order(by):
            rows = [
                row
                for row in self.rows
                if row["sae"] == name
                and (row["concept"] in by if by else "/" not in row["concept"])
            ]
            if layer is None or rows[0]["layer"] == layer:
                lines.append(candidate_line(rows))
        return lines

    def concept_lines(self, layer: int | None = None) -> list[ConceptLine]:
        """One line per concept that candidates, of one layer or of all, could be ranked on."""
        rows = [row for row in self.rows if layer in (None, row["layer"])]
        concepts = dict.fromkeys(row["concept"] for row in rows)
        lines = [concept_line([r for r in rows if r["concept"] == c]) for c in concepts]
        return [line for line in lines if line is not None]

    def refused(self) -> dict[str, str]:
        """Candidates that could not be ranked, and why."""
        return {row["sae"]: row["health"] for row in self.rows if row["health"] != "ok"}

    def warnings(self) -> list[str]:
        """What a reader should know before trusting the numbers, each once with what it is of."""
        found: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for warning in row["warnings"] or []:
                of_concept = warning in (FEW_PAIRS_WARNING, NONE_CALLED_WARNING)
                found.setdefault(warning, {})[row["concept"] if of_concept else row["sae"]] = None
        return [f"{', '.join(of)}: {warning}" for warning, of in found.items()]

    def to_pandas(self) -> pd.DataFrame:
        """The rankings table."""
        return table_from_rows(self.rows, RANKINGS).to_pandas()


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
        InputError: the corpus is empty, or a pair's text is longer than the model's context.
        StorageError: candidates do not fit in memory together, nor activations on the disk.
    """
    design = PairDesign.of(concepts, settings.seed)
    for found in observe_candidates(model, candidates, design, corpus, settings, progress=progress):
        if isinstance(found, Refused):
            yield RankedCandidate(_refused_rows(found, concepts), [])
        else:
            yield _ranked(found, design, settings)


def compare(rows: Sequence[dict[str, Any]], concepts: ConceptSet) -> None:
    """Order scored candidates: fill `rank`, `tied_with_best` and `mean_rank` in their rows.

    Per concept by `separation_best`; over concepts by the mean rank of the top-level ones. A
    candidate is tied with the first when the 95 % interval of their difference over the same
    resamples of pairs holds zero.

    Raises:
        CandidateError: no candidate could be ranked.
    """
    by_concept: dict[str, list[dict[str, Any]]] = {}
    healthy = {row["sae"] for row in rows if row["health"] == "ok"}
    if not healthy:
        reasons = "; ".join(sorted({f"{row['sae']}: {row['health']}" for row in rows}))
        raise CandidateError(f"no candidate could be ranked: {reasons}")
    for row in rows:
        if row["sae"] in healthy and np.isfinite(row["separation_best"]):
            by_concept.setdefault(row["concept"], []).append(row)
    for members in by_concept.values():
        members.sort(key=lambda row: (-row["separation_best"], row["sae"]))
        best = np.array(members[0]["separation_resamples"])
        values = np.array([row["separation_best"] for row in members])
        for row in members:
            # Equals share a place: which of them is best may not depend on their names.
            row["rank"] = 1 + int((values > row["separation_best"]).sum())
            lead = best - np.array(row["separation_resamples"])
            # Without resamples (no feature distinguishes any pair) only equals are tied.
            known = bool(np.isfinite(lead).all())
            row["tied_with_best"] = (
                bool(np.quantile(lead, 0.025) <= 0) if known else row["rank"] == 1
            )
    for row in rows:
        if row["sae"] in healthy:
            ranks = [
                other["rank"]
                for concept in concepts.top_level
                for other in by_concept.get(concept, [])
                if other["sae"] == row["sae"]
            ]
            # Where no concept has pairs enough to be cross-fitted, all share the last place.
            row["mean_rank"] = float(np.mean(ranks)) if ranks else float(len(healthy))


def _refused_rows(refused: Refused, concepts: ConceptSet) -> list[dict[str, Any]]:
    return [
        {
            "sae": refused.candidate.name,
            "source": refused.candidate.source,
            "concept": concept,
            "layer": None,
            "mean_rank": None,
            "health": f"{REFUSED}{refused.reason}",
            "warnings": [],
        }
        for concept in concepts.names
    ]


def _ranked(
    observation: Observation, design: PairDesign, settings: RankingSettings
) -> RankedCandidate:
    sae, q999 = observation.sae, observation.q999()
    scores = score_candidate(observation.pooled, q999, design, settings)
    features = [
        {
            "sae": sae.name,
            "layer": sae.layer,
            "concept": score.concept,
            "q999": float(q999[int(chosen["feature"])]),
            "status": "chosen",
            **chosen,
        }
        for score in scores
        for chosen in score.chosen
    ]
    return RankedCandidate([_row(observation, score) for score in scores], features)


def _row(observation: Observation, score: ConceptScore) -> dict[str, Any]:
    sae, sample, pairs = observation.sae, observation.sample, observation.pairs
    health, suspicions = judge_health(observation)
    warnings = [*sae.warnings, *suspicions, *score.warnings]
    if sample.tokens < ENOUGH_SAMPLE_TOKENS:
        warnings.append(f"q999 and health rest on {sample.tokens:,} tokens only")
    low, high = score.interval()
    return {
        "sae": sae.name,
        "source": sae.source,
        "architecture": sae.architecture,
        "hook_point": sae.hook_point,
        "layer": sae.layer,
        "concept": score.concept,
        "width": sae.width,
        "pairs": score.pairs,
        "l0": sample.l0,
        "fvu": sample.fvu,
        "dead_share": sample.dead_share,
        "tokens": sample.tokens,
        "l0_pairs": pairs.l0,
        "fvu_pairs": pairs.fvu,
        "dead_share_pairs": pairs.dead_share,
        "i_cdf": score.i_cdf,
        **{f"l0_t{level * 100:.0f}": score.l0[level] for level in LEVELS},
        "called_features": score.called_features,
        "separation_best": score.separation_best,
        "separation_best_low": low,
        "separation_best_high": high,
        "separation_top10": score.separation_top10,
        "separation_resamples": score.resampled.tolist(),
        "separation_chance": score.separation_chance,
        "mean_rank": None,
        "health": health,
        "warnings": warnings,
    }
