"""Explain features, predict activations from the explanations alone, and score the predictions."""

from safesail.explaining._choice import Chooser, Prospect, prospects_of
from safesail.explaining._design_effect import DesignEffect
from safesail.explaining._duplicates import find_duplicates
from safesail.explaining._estimate import (
    Estimate,
    Experience,
    added_up,
    estimate,
    experience_of,
)
from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._explain import explain_features, is_findable
from safesail.explaining._lexical import explain_lexically, simulate_lexically
from safesail.explaining._qualification import PlantedFeature, Qualification
from safesail.explaining._qualify import qualify_judge
from safesail.explaining._scores import Interval, WindowScores, window_scores
from safesail.explaining._scoring import Scoring

__all__ = [
    "Chooser",
    "DesignEffect",
    "Estimate",
    "Experience",
    "FeatureEvidence",
    "Interval",
    "PlantedFeature",
    "Prospect",
    "Qualification",
    "Scoring",
    "WindowScores",
    "added_up",
    "estimate",
    "experience_of",
    "explain_features",
    "explain_lexically",
    "find_duplicates",
    "is_findable",
    "prospects_of",
    "qualify_judge",
    "simulate_lexically",
    "window_scores",
]
