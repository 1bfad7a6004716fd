"""Explain features, predict activations from the explanations alone, and score the predictions."""

from safesail.explaining._estimate import Estimate, estimate
from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._explain import explain_features
from safesail.explaining._lexical import explain_lexically, simulate_lexically
from safesail.explaining._scores import Interval, WindowScores, window_scores

__all__ = [
    "Estimate",
    "FeatureEvidence",
    "Interval",
    "WindowScores",
    "estimate",
    "explain_features",
    "explain_lexically",
    "simulate_lexically",
    "window_scores",
]
