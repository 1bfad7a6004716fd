"""The features of `benchmarks/judge_cost.py`: those that the lab's SAEs' ranking chose.

They are ranked and collected as a user's are, in a study of their own, with more windows of each
than a run needs: what is left over says what a score is in truth.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safesail.explaining import FeatureEvidence
from safesail.pipeline import Selection, collect, rank, start_study
from safesail.study import CONFIGURATION_FILE, Study
from safesail.tables import Context

SAES = (
    "layer2-resid-batchtopk16",
    "layer3-resid-topk16",
    "layer1-resid-topk16",
    "layer2-resid-topk8",
    "layer2-resid-topk4",
)
# Of each split: 200 active windows, spread over the levels, and 200 silent ones.
PER_LEVEL, SILENT, HARD_SILENT = 20, 100, 100
# What a study keeps by default: of each level, and of silent and hard silent windows each.
USUAL_PER_LEVEL, USUAL_SILENT = 5, 25
_APART = 100_000


@dataclass(frozen=True)
class Pool:
    """Features of several SAEs as if of one, with numbers of their own.

    Attributes:
        evidence: their windows.
        rows: their rows of the features tables.
        concepts: names of all concepts.
    """

    evidence: list[FeatureEvidence]
    rows: list[dict[str, Any]]
    concepts: list[str]


def build(folder: Path, saes: Sequence[str] = SAES) -> Pool:
    """Rank and collect, unless the folder holds that already."""
    if not (folder / CONFIGURATION_FILE).exists():
        start_study(folder, model="builtin:lab", saes=[], concepts=[], corpus=[])
        text = (folder / CONFIGURATION_FILE).read_text()
        for old, new in (
            (f"per_level = {USUAL_PER_LEVEL}", f"per_level = {PER_LEVEL}"),
            (f"silent = {USUAL_SILENT}", f"silent = {SILENT}"),  # and hard_silent
        ):
            assert old in text, old
            text = text.replace(old, new)
        (folder / CONFIGURATION_FILE).write_text(text)
    study = Study.open(folder)
    ranking = rank(study)
    found = collect(study, [Selection(sae=name) for name in saes])
    evidence, rows = [], []
    for number, collection in enumerate(found):
        contexts = collection.contexts()
        by_feature: dict[int, list[dict[str, Any]]] = {}
        for row in collection.rows:
            by_feature.setdefault(row["feature"], []).append(row)
        for feature in collection.features:
            own = sorted(by_feature[feature], key=lambda row: -row["separation"])
            one = FeatureEvidence(
                sae=collection.sae,
                layer=collection.layer,
                feature=feature,
                q999=own[0]["q999"],
                concepts=[row["concept"] for row in own],
                contexts=contexts.get(feature, []),
                status=own[0]["status"],
            )
            if one.status == "collected" and one.shortage() is None:
                evidence.append(replace(one, feature=number * _APART + feature))
                rows += [{**row, "feature": number * _APART + feature} for row in own]
    concepts = sorted({row["concept"] for row in ranking.rows})
    return Pool(evidence, rows, concepts)


def thinned(evidence: FeatureEvidence) -> FeatureEvidence:
    """With as many windows of each split as a study keeps by default, and the strongest."""
    kept: list[Context] = []
    seen: Counter[tuple[str, str, int]] = Counter()
    rng = random.Random(evidence.name)
    for context in rng.sample(evidence.contexts, len(evidence.contexts)):
        stratum = (context.split, context.kind, context.level)
        if context.sample == "random":
            seen[stratum] += 1
        if context.sample != "random" or seen[stratum] <= _usual(context):
            kept.append(context)
    return replace(evidence, contexts=kept)


def redrawn(usual: FeatureEvidence, full: FeatureEvidence, seed: int) -> FeatureEvidence:
    """The usual evidence with windows to score on drawn with replacement from all there are.

    As many of each stratum as it has. A window that is drawn twice stands for two documents: all
    draws are independent.
    """
    rng = random.Random(f"{full.name}/{seed}")
    strata: defaultdict[tuple[str, int], list[Context]] = defaultdict(list)
    for context in full.to_score():
        strata[context.kind, context.level].append(context)
    drawn = [
        replace(one, document=f"{one.document}/{number}")
        for stratum in strata.values()
        for number, one in enumerate(rng.choices(stratum, k=min(len(stratum), _usual(stratum[0]))))
    ]
    return replace(usual, contexts=[*usual.to_explain(), *drawn])


def _usual(context: Context) -> int:
    return USUAL_PER_LEVEL if context.kind == "active" else USUAL_SILENT
