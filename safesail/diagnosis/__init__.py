"""A text, a model and SAEs: what fires, what if, and what there is.

`diagnose_text` says which explained features fire on each token of a text, `compare` lays two
texts side by side, `intervene` changes a feature while the model runs and measures what follows,
and the landscape sums up the explained features over concepts and layers.

The names below load on first use: the landscape's tables need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.diagnosis._compare import (
        Comparison,
        ConceptDifference,
        FeatureDifference,
        compare,
    )
    from safesail.diagnosis._diagnosis import (
        DiagnosedToken,
        Diagnosis,
        Firing,
        LayerDiagnosis,
        Trajectory,
    )
    from safesail.diagnosis._entities import ENTITY_SHARE, EntityProfile, entity_profiles
    from safesail.diagnosis._features import (
        ExplainedFeature,
        best_concepts,
        explained_features,
        with_ancestors,
    )
    from safesail.diagnosis._figure import plot_landscape
    from safesail.diagnosis._intervene import (
        FeatureIntervention,
        alive_features,
        draw_controls,
        target_tokens,
    )
    from safesail.diagnosis._intervention import (
        Answers,
        Effect,
        Intervention,
        PromptOutcome,
        TokenProbability,
    )
    from safesail.diagnosis._landscape import (
        WELL,
        ConceptCount,
        DepthShare,
        Landscape,
        Overlap,
        SurveyedSae,
        survey,
    )
    from safesail.diagnosis._map import FEATURE_MAP, method_for, place_features
    from safesail.diagnosis._read import Answering, ExplainedSae, diagnose_text
    from safesail.diagnosis._shift import FeatureEdit, Mode, TextChange, feature_shift

__all__ = [
    "ENTITY_SHARE",
    "FEATURE_MAP",
    "WELL",
    "Answering",
    "Answers",
    "Comparison",
    "ConceptCount",
    "ConceptDifference",
    "DepthShare",
    "DiagnosedToken",
    "Diagnosis",
    "Effect",
    "EntityProfile",
    "ExplainedFeature",
    "ExplainedSae",
    "FeatureDifference",
    "FeatureEdit",
    "FeatureIntervention",
    "Firing",
    "Intervention",
    "Landscape",
    "LayerDiagnosis",
    "Mode",
    "Overlap",
    "PromptOutcome",
    "SurveyedSae",
    "TextChange",
    "TokenProbability",
    "Trajectory",
    "alive_features",
    "best_concepts",
    "compare",
    "diagnose_text",
    "draw_controls",
    "entity_profiles",
    "explained_features",
    "feature_shift",
    "method_for",
    "place_features",
    "plot_landscape",
    "survey",
    "target_tokens",
    "with_ancestors",
]

_HOMES = {
    "ENTITY_SHARE": "_entities",
    "FEATURE_MAP": "_map",
    "WELL": "_landscape",
    "Answering": "_read",
    "Answers": "_intervention",
    "Comparison": "_compare",
    "ConceptCount": "_landscape",
    "ConceptDifference": "_compare",
    "DepthShare": "_landscape",
    "DiagnosedToken": "_diagnosis",
    "Diagnosis": "_diagnosis",
    "Effect": "_intervention",
    "EntityProfile": "_entities",
    "ExplainedFeature": "_features",
    "ExplainedSae": "_read",
    "FeatureDifference": "_compare",
    "FeatureEdit": "_shift",
    "FeatureIntervention": "_intervene",
    "Firing": "_diagnosis",
    "Intervention": "_intervention",
    "Landscape": "_landscape",
    "LayerDiagnosis": "_diagnosis",
    "Mode": "_shift",
    "Overlap": "_landscape",
    "PromptOutcome": "_intervention",
    "SurveyedSae": "_landscape",
    "TextChange": "_shift",
    "TokenProbability": "_intervention",
    "Trajectory": "_diagnosis",
    "alive_features": "_intervene",
    "best_concepts": "_features",
    "compare": "_compare",
    "diagnose_text": "_read",
    "draw_controls": "_intervene",
    "entity_profiles": "_entities",
    "explained_features": "_features",
    "feature_shift": "_shift",
    "method_for": "_map",
    "place_features": "_map",
    "plot_landscape": "_figure",
    "survey": "_landscape",
    "target_tokens": "_intervene",
    "with_ancestors": "_features",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
