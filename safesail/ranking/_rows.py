"""A scored candidate as rows of the rankings and features tables."""

from __future__ import annotations

from typing import Any

from safesail.concepts import ConceptSet
from safesail.ranking._distinguish import LEVELS
from safesail.ranking._groups import Refused
from safesail.ranking._health import judge_health
from safesail.ranking._observe import Observation
from safesail.ranking._score import ConceptScore

REFUSED = "refused: "
"""Begins the health of a candidate that could not be read or does not fit."""
# Below this many tokens a 0.999 quantile rests on few values (DESIGN of q999).
ENOUGH_SAMPLE_TOKENS = 200_000


def ranking_row(observation: Observation, score: ConceptScore) -> dict[str, Any]:
    """One row of the rankings table, before candidates are compared."""
    sae, sample, pairs = observation.sae, observation.sample, observation.pairs
    health, suspicions = judge_health(observation)
    warnings = [*sae.warnings, *suspicions, *score.warnings]
    if sample.tokens < ENOUGH_SAMPLE_TOKENS:
        warnings.append(f"q999 and health rest on {sample.tokens:,} tokens only")
    if observation.cut_texts:
        warnings.append(
            f"{observation.cut_texts:,} of the pairs' texts are longer than the model's context "
            "and were read in pieces"
        )
    distinction, separation, separating = score.distinction, score.separation, score.separating
    return {
        "sae": sae.name,
        "source": sae.source,
        "architecture": sae.architecture,
        "hook_point": sae.hook_point,
        "layer": sae.layer,
        "concept": score.role.concept,
        "width": sae.width,
        "pairs": len(score.role.pairs),
        "independent_pairs": score.role.evidence,
        "l0": sample.l0,
        "fvu": sample.fvu,
        "dead_share": sample.dead_share,
        "tokens": sample.tokens,
        "sink_threshold": observation.sink_threshold,
        "l0_pairs": pairs.l0,
        "fvu_pairs": pairs.fvu,
        "dead_share_pairs": pairs.dead_share,
        **_with_interval("separating_features", separating.count, separating.interval),
        "separating_by_chance": separating.by_chance,
        "separating_resamples": separating.resampled.tolist(),
        **_with_interval("separation_best", separation.best, separation.interval),
        "separation_resamples": separation.resampled.tolist(),
        "separation_top10": separation.top10,
        "separation_chance": score.role.chance,
        **_with_interval("auroc", separation.auroc, separation.auroc_interval),
        "f1": separation.f1,
        "probe5": separation.probe5,
        "specificity": score.specificity,
        **_with_interval("i_cdf", distinction.i_cdf, score.i_cdf_interval),
        **{f"l0_t{level * 100:.0f}": distinction.count(level) for level in LEVELS},
        **{f"excess_l0_t{level * 100:.0f}": distinction.excess(level) for level in LEVELS},
        "called_features": score.called_features,
        "least_callable_f": score.least_callable,
        "mean_rank": None,
        "health": health,
        "warnings": warnings,
    }


def feature_rows(observation: Observation, scores: list[ConceptScore]) -> list[dict[str, Any]]:
    """The candidate's chosen features as rows of the features table."""
    sae, q999 = observation.sae, observation.q999()
    return [
        {
            "sae": sae.name,
            "layer": sae.layer,
            "concept": score.role.concept,
            "q999": float(q999[int(chosen["feature"])]),
            "status": "chosen",
            **chosen,
        }
        for score in scores
        for chosen in score.chosen
    ]


def refused_rows(refused: Refused, concepts: ConceptSet) -> list[dict[str, Any]]:
    """A candidate that could not be ranked: one row per concept, with the reason."""
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


def _with_interval(name: str, value: float, ends: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
