"""What there is: explained features over concepts and layers, from a study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from safesail.diagnosis._entities import EntityProfile
from safesail.diagnosis._features import ExplainedFeature, Row

VERSION = 1
WELL = 0.75
"""A feature is well explained where the lower end of discrimination's interval lies above this:
our choice."""


@dataclass(frozen=True)
class SurveyedSae:
    """An SAE as its tables have it.

    Attributes:
        sae: its name.
        layer: its layer.
        chosen: rows of its features table.
        explained: its explained features.
        entities: profiles of its features, where contexts are kept.
    """

    sae: str
    layer: int
    chosen: Sequence[Row]
    explained: Sequence[ExplainedFeature]
    entities: Sequence[EntityProfile]

    def called(self, concept: str) -> set[int]:
        """Features called for a concept."""
        rows = self.chosen
        return {r["feature"] for r in rows if r["concept"] == concept and r["called"]}


@dataclass(frozen=True)
class ConceptCount:
    """A concept at one SAE.

    Attributes:
        sae: name of the SAE.
        layer: its layer.
        concept: the concept.
        chosen: features chosen for it.
        called: those of them that distinguish more pairs than chance would.
        explained: called features with an explanation.
        scored: explained ones with a discrimination score.
        well: scored ones whose interval lies above the bar.
        median: median discrimination of the scored ones; None where there are none.
        median_low: lower end of its 95 % interval, percentile bootstrap over features; None with
            fewer than two.
        median_high: upper end.
        entity_like: called features whose windows peak at one token type.
        spread: called features whose windows do not.
        undecided: called features of which that is not known.
    """

    sae: str
    layer: int
    concept: str
    chosen: int
    called: int
    explained: int
    scored: int
    well: int
    median: float | None
    median_low: float | None
    median_high: float | None
    entity_like: int
    spread: int
    undecided: int


@dataclass(frozen=True)
class DepthShare:
    """How much of a concept is found at one layer.

    Attributes:
        concept: the concept.
        layer: the layer; its SAEs are taken together.
        depth: of the layer: 0 for the first block, 1 for the last; None where the model's number
            of blocks is not known.
        well: well explained features there.
        all_layers: those of all layers.
        share: the first over the second; None where there are none.
        low: lower end of its 95 % Wilson interval.
        high: upper end.
        scored: scored features there: more of them find more.
    """

    concept: str
    layer: int
    depth: float | None
    well: int
    all_layers: int
    share: float | None
    low: float | None
    high: float | None
    scored: int


@dataclass(frozen=True)
class Overlap:
    """Features that two concepts share, over all SAEs.

    Attributes:
        first: a concept.
        second: another, outside its branch.
        shared: features called for both.
        either: features called for one of them at least.
        jaccard: the first over the second; None where there are none.
    """

    first: str
    second: str
    shared: int
    either: int
    jaccard: float | None


@dataclass(frozen=True)
class Landscape:
    """Explained features over concepts and layers.

    Attributes:
        bar: a feature is well explained where the lower end of discrimination's interval lies
            above it.
        layers: number of the model's blocks; None where it is not known.
        saes: explained SAEs, by layer.
        explained_by: who wrote the explanations, `lexical` among them.
        concepts: all concepts, parents before children.
        counts: by SAE and concept.
        depths: by concept without a parent, and layer.
        overlaps: of every two concepts without a parent.
        entities: of each feature with active windows.
    """

    bar: float
    layers: int | None
    saes: tuple[str, ...]
    explained_by: tuple[str, ...]
    concepts: tuple[str, ...]
    counts: tuple[ConceptCount, ...]
    depths: tuple[DepthShare, ...]
    overlaps: tuple[Overlap, ...]
    entities: tuple[EntityProfile, ...]

    @property
    def top_level(self) -> tuple[str, ...]:
        """Concepts without a parent."""
        return tuple(concept for concept in self.concepts if "/" not in concept)

    def to_json(self) -> dict[str, Any]:
        """The attributes, by name, as docs/landscape.md describes them."""
        return {"version": VERSION, **asdict(self)}


def survey(saes: Sequence[SurveyedSae], concepts: Sequence[str], layers: int | None) -> Landscape:
    """Sum up explained SAEs.

    Args:
        saes: by layer.
        concepts: all concepts, parents before children.
        layers: number of the model's blocks, where it is known.
    """
    counts = tuple(_count(sae, concept) for sae in saes for concept in concepts)
    top = [concept for concept in concepts if "/" not in concept]
    return Landscape(
        bar=WELL,
        layers=layers,
        saes=tuple(sae.sae for sae in saes),
        explained_by=tuple(sorted({f.explained_by for sae in saes for f in sae.explained})),
        concepts=tuple(concepts),
        counts=counts,
        depths=tuple(_depths(counts, top, layers)),
        overlaps=tuple(_overlap(saes, *pair) for pair in combinations(top, 2)),
        entities=tuple(profile for sae in saes for profile in sae.entities),
    )


def _count(sae: SurveyedSae, concept: str) -> ConceptCount:
    called = sae.called(concept)
    explained = [one for one in sae.explained if one.feature in called and one.explanation]
    scores = [one.discrimination for one in explained if one.discrimination is not None]
    lows = [one.discrimination_low or 0.0 for one in explained if one.discrimination is not None]
    kinds = {profile.feature: profile.kind for profile in sae.entities}
    mine = [kinds.get(feature, "undecided") for feature in called]
    low, high = _median_interval(scores)
    return ConceptCount(
        sae=sae.sae,
        layer=sae.layer,
        concept=concept,
        chosen=sum(row["concept"] == concept for row in sae.chosen),
        called=len(called),
        explained=len(explained),
        scored=len(scores),
        well=sum(value > WELL for value in lows),
        median=float(np.median(scores)) if scores else None,
        median_low=low,
        median_high=high,
        entity_like=mine.count("entity-like"),
        spread=mine.count("spread"),
        undecided=mine.count("undecided"),
    )


def _median_interval(scores: Sequence[float]) -> tuple[float | None, float | None]:
    if len(scores) < 2:
        return None, None
    draws = np.random.default_rng(0).choice(np.array(scores), size=(2000, len(scores)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _depths(
    counts: Sequence[ConceptCount], concepts: Sequence[str], layers: int | None
) -> list[DepthShare]:
    from scipy import stats

    found = []
    for concept in concepts:
        by_layer: dict[int, tuple[int, int]] = {}
        for one in counts:
            if one.concept == concept:
                well, scored = by_layer.get(one.layer, (0, 0))
                by_layer[one.layer] = (well + one.well, scored + one.scored)
        total = sum(well for well, _ in by_layer.values())
        for layer, (well, scored) in sorted(by_layer.items()):
            ends = stats.binomtest(well, total).proportion_ci(method="wilson") if total else None
            found.append(
                DepthShare(
                    concept=concept,
                    layer=layer,
                    depth=None if layers is None else layer / max(1, layers - 1),
                    well=well,
                    all_layers=total,
                    share=well / total if total else None,
                    low=float(ends.low) if ends else None,
                    high=float(ends.high) if ends else None,
                    scored=scored,
                )
            )
    return found


def _overlap(saes: Sequence[SurveyedSae], first: str, second: str) -> Overlap:
    ones, others = (
        {(sae.sae, feature) for sae in saes for feature in sae.called(concept)}
        for concept in (first, second)
    )
    shared, either = len(ones & others), len(ones | others)
    return Overlap(first, second, shared, either, shared / either if either else None)
