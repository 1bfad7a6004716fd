"""The true discrimination of an explanation with a known judge, for `benchmarks/judge_cost.py`."""

from __future__ import annotations

import numpy as np

from safesail.explaining import FeatureEvidence
from safesail.explaining._items import draw_items
from safesail.explaining._mixture import mixture_weights
from safesail.lab.judge import Quality, expected_grades

# Places of the segment drawn in every window; each adds its judge's exact distribution.
_DRAWS = 2
_GRADES = 4


def true_discrimination(explanation: str, evidence: FeatureEvidence, quality: Quality) -> float:
    """AUROC of the judge's grades over all windows of the score split, ties half.

    The judge's distribution over grades is exact, for prompts of any effect together; windows are
    weighted to the reference mixture.

    Args:
        explanation: what the judge goes by.
        evidence: with all windows that stand for the truth.
        quality: of the judge.
    """
    windows = len(evidence.to_score())
    active, silent = np.zeros(_GRADES), np.zeros(_GRADES)
    for seed in range(_DRAWS):
        (items,) = draw_items(evidence, [windows], seed=10_000 + seed)
        chances = expected_grades(explanation, [item.text for item in items], quality)
        weights = mixture_weights([item.context for item in items])
        is_active = np.array([item.context.kind == "active" for item in items])
        active += weights[is_active] @ chances[is_active]
        silent += weights[~is_active] @ chances[~is_active]
    active, silent = active / active.sum(), silent / silent.sum()
    below = np.cumsum(silent) - silent
    return float(active @ (below + silent / 2))
