"""What each metric says of a world's candidates, from all its contrast pairs or from a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ranking_worlds
from numpy.typing import NDArray
from scipy.sparse import csr_array, load_npz, save_npz

from safesail.concepts import ConceptSet, ContrastPair
from safesail.corpus import Corpus
from safesail.language_model import LanguageModel
from safesail.ranking._compare import places
from safesail.ranking._design import PairDesign, Role
from safesail.ranking._distinguish import LEVELS
from safesail.ranking._groups import observe_candidates
from safesail.ranking._observe import Observation
from safesail.ranking._score import score_candidate
from safesail.ranking._separation import separate
from safesail.ranking._sorted_scores import SortedScores
from safesail.sparse_autoencoder import find_candidates
from safesail.study import CorpusSource, RankingSettings

SETTINGS = RankingSettings(sample_tokens=50_000)


@dataclass(frozen=True)
class World:
    """A world as the metrics see it, and what is true of its candidates.

    Attributes:
        pairs: contrast pairs of its eight concepts.
        observed: by candidate, activations on the pairs' texts [texts, features], q999
            [features], and l0, fvu, dead_share.
        truth: by candidate.
    """

    seed: int
    pairs: tuple[ContrastPair, ...]
    observed: dict[str, dict[str, Any]]
    truth: dict[str, ranking_worlds.Truth]


def open_world(seed: int, folder: Path) -> World:
    """Build a world unless it is there, and observe its candidates unless they were."""
    home = ranking_worlds.build(seed, folder)
    rows, truth = ranking_worlds.load(home)
    # Children are left out: concepts are compared, and each has pairs of three children.
    pairs = tuple(
        ContrastPair(row["concept"].split("/")[0], row["positive"], row["negative"]) for row in rows
    )
    kept = home / "observed"
    if not (kept / "done").exists():
        _observe(home, pairs, kept)
    observed = {}
    for name in truth:
        with np.load(kept / f"{name}.npz") as numbers:
            observed[name] = {
                "pooled": load_npz(kept / f"{name}.pooled.npz").toarray(),
                "q999": numbers["q999"],
                **{key: float(numbers[key]) for key in ("l0", "fvu", "dead_share")},
            }
    return World(seed, pairs, observed, truth)


def _observe(home: Path, pairs: Sequence[ContrastPair], kept: Path) -> None:
    kept.mkdir(exist_ok=True)
    model = LanguageModel.load(str(home / "model"), device="cpu")
    found = observe_candidates(
        model,
        find_candidates([str(home / "saes" / "*")], home),
        PairDesign.of(ConceptSet(pairs), 0),
        Corpus([CorpusSource(path=str(home / "corpus.parquet"))], home),
        SETTINGS,
        progress=lambda items, label: items,
    )
    for one in found:
        assert isinstance(one, Observation), one
        save_npz(kept / f"{one.sae.name}.pooled.npz", csr_array(one.pooled))
        sample = one.sample
        np.savez(
            kept / f"{one.sae.name}.npz",
            q999=one.q999(), l0=sample.l0, fvu=sample.fvu, dead_share=sample.dead_share,
        )  # fmt: skip
    (kept / "done").touch()


def some_pairs(
    pairs: Sequence[ContrastPair], per_concept: int, seed: int
) -> tuple[ContrastPair, ...]:
    """So many pairs of each concept, drawn at random without replacement, in their order."""
    generator = np.random.default_rng(seed)
    concepts = np.array([pair.concept for pair in pairs])
    drawn = [
        generator.permutation(np.flatnonzero(concepts == concept))[:per_concept]
        for concept in dict.fromkeys(concepts.tolist())
    ]
    return tuple(pairs[number] for number in np.sort(np.concatenate(drawn)))


def metrics(world: World, pairs: Sequence[ContrastPair]) -> dict[str, dict[str, float]]:
    """By metric and candidate, what it says; larger is better. Means over concepts.

    `separating_features` is the default order of `rank-saes`: minus the mean place over concepts.
    """
    design = PairDesign.of(ConceptSet(pairs), 0)
    design = replace(design, draws=design.draws[:1])  # intervals are not looked at here
    whole = PairDesign.of(ConceptSet(world.pairs), 0).texts
    number = {text: place for place, text in enumerate(whole)}
    rows = [number[text] for text in design.texts]
    found: dict[str, dict[str, float]] = {}
    counts, precision = [], []
    for name, seen in world.observed.items():
        pooled = np.ascontiguousarray(seen["pooled"][rows])
        of_concepts = _of_candidate(pooled, seen["q999"], design)
        counts.append([one["total_separating"] for one in of_concepts])
        precision.append([one["separation"] for one in of_concepts])
        for metric in of_concepts[0]:
            mean = float(np.nanmean([one[metric] for one in of_concepts]))
            found.setdefault(metric, {})[name] = mean
        found.setdefault("fvu", {})[name] = -seen["fvu"]
        found.setdefault("raw_l0", {})[name] = seen["l0"]
    order = places(np.array(counts, dtype=float).T, np.array(precision).T).mean(axis=0)
    found["separating_features"] = dict(zip(world.observed, (-order).tolist(), strict=True))
    return found


def _of_candidate(
    pooled: NDArray[np.float32], q999: NDArray[np.float32], design: PairDesign
) -> list[dict[str, float]]:
    scores = SortedScores.of(pooled)
    found = []
    for score in score_candidate(pooled, q999, design, SETTINGS):
        role = score.role
        wins = _wins(pooled, q999, role, design)
        own = np.zeros(len(design.texts), dtype=bool)
        own[design.positive[role.pairs]] = own[design.negative[role.pairs]] = True
        only = {
            "separation_twins": replace(role, weight=role.weight * own),
            "separation_others": replace(role, weight=role.weight * (role.positive | ~own)),
        }
        found.append(
            {
                "total_separating": score.separating.count,
                "separation": score.separation.best,
                "separation_top10": score.separation.top10,
                **{
                    name: separate(pooled, wins, scores, some, design).best
                    for name, some in only.items()
                },
                "auroc": score.separation.auroc,
                "f1": score.separation.f1,
                "probe5": score.separation.probe5,
                "specificity": score.specificity,
                "called_features": score.called_features,
                "i_cdf": score.distinction.i_cdf,
                **{f"l0_t{100 * t:.0f}": score.distinction.count(t) for t in LEVELS},
                **{f"excess_l0_t{100 * t:.0f}": score.distinction.excess(t) for t in LEVELS},
            }
        )
    return found


def _wins(
    pooled: NDArray[np.float32], q999: NDArray[np.float32], role: Role, design: PairDesign
) -> NDArray[np.bool_]:
    lead = pooled[design.positive[role.pairs]] - pooled[design.negative[role.pairs]]
    return lead > SETTINGS.margin * q999
