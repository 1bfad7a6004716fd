"""Diagnoses as JSON: the shape that docs/diagnosis.md describes. Keys are added, never renamed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safesail.diagnosis._diagnosis import Diagnosis, Firing, LayerDiagnosis, Trajectory
from safesail.diagnosis._features import ExplainedFeature

if TYPE_CHECKING:
    from safesail.diagnosis._compare import Comparison

VERSION = 1
# Strengths and activations are single precision: further digits mean nothing.
_DIGITS = 6


def diagnosis_json(diagnosis: Diagnosis, *, top: int | None, threshold: float) -> dict[str, Any]:
    """A diagnosis for machines."""
    firings = [
        firing
        for token in range(len(diagnosis.tokens))
        for firing in diagnosis.firings(token, top=top, threshold=threshold)
    ]
    shown = {(one.feature.sae, one.feature.feature) for one in firings}
    peaks = [one for one in diagnosis.peaks() if (one.feature.sae, one.feature.feature) in shown]
    return {
        "version": VERSION,
        "model": diagnosis.model,
        "text": diagnosis.text,
        "chat": diagnosis.chat,
        "answer_ended": diagnosis.answer_ended,
        "top": top,
        "threshold": threshold,
        "tokens": [token._asdict() for token in diagnosis.tokens],
        "layers": [_layer(layer) for layer in diagnosis.layers],
        "concepts": [_trajectory(one) for one in diagnosis.trajectories],
        "features": [_peak(one) for one in peaks],
        "firings": [_firing(one) for one in firings],
    }


def comparison_json(comparison: Comparison, *, top: int | None, threshold: float) -> dict[str, Any]:
    """A comparison for machines."""
    return {
        "version": VERSION,
        "concepts": [
            {
                "concept": one.concept,
                "first": _rounded(one.first),
                "second": _rounded(one.second),
                "difference": _rounded(one.difference),
            }
            for one in comparison.concepts
        ],
        "features": [
            {
                **feature_json(one.feature),
                "first": _place(one.first),
                "second": _place(one.second),
                "difference": _rounded(one.difference),
            }
            for one in comparison.features
            if max(_strength(one.first), _strength(one.second)) >= threshold
        ],
        "first": diagnosis_json(comparison.first, top=top, threshold=threshold),
        "second": diagnosis_json(comparison.second, top=top, threshold=threshold),
    }


def feature_json(feature: ExplainedFeature) -> dict[str, Any]:
    """What the study says of a feature."""
    return {**asdict(feature), "concepts": list(feature.concepts)}


def _layer(layer: LayerDiagnosis) -> dict[str, Any]:
    return {
        "sae": layer.sae,
        "layer": layer.layer,
        "hook_point": layer.hook_point,
        "features": len(layer.features),
        "left_out": list(layer.left_out),
        "content": layer.content.tolist(),
    }


def _trajectory(trajectory: Trajectory) -> dict[str, Any]:
    row, token = trajectory.peak_at
    return {
        "concept": trajectory.concept,
        "features": list(trajectory.features),
        "peak": _rounded(trajectory.peak),
        "peak_at": {"row": row, "token": token} if trajectory.peak > 0 else None,
        "strengths": [_row(values) for values in trajectory.strengths],
    }


def _row(values: NDArray[np.float32]) -> list[float | None]:
    return [None if np.isnan(value) else _rounded(float(value)) for value in values]


def _peak(firing: Firing) -> dict[str, Any]:
    return {**feature_json(firing.feature), "peak": _place(firing)}


def _place(firing: Firing | None) -> dict[str, Any] | None:
    if firing is None:
        return None
    return {
        "token": firing.token,
        "activation": _rounded(firing.activation),
        "strength": _rounded(firing.strength),
    }


def _firing(firing: Firing) -> dict[str, Any]:
    feature = firing.feature
    return {
        "token": firing.token,
        "sae": feature.sae,
        "layer": feature.layer,
        "feature": feature.feature,
        "activation": _rounded(firing.activation),
        "strength": _rounded(firing.strength),
    }


def _strength(firing: Firing | None) -> float:
    return 0.0 if firing is None else firing.strength


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
