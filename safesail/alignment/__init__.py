"""SAILS: find the subspace of a model's safety features, and align the model inside it.

The names below load on first use: neither torch nor PEFT is needed to look at a subspace.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.alignment._adapter import adapter_parameters, make_adapter, make_plain_adapter
    from safesail.alignment._advice import Advice, advise
    from safesail.alignment._comparison import (
        Comparison,
        check_comparison,
        compare,
    )
    from safesail.alignment._contrast import FeatureContrast, contrast_features
    from safesail.alignment._data import Example, encode_examples, encode_prompt, mix, read_examples
    from safesail.alignment._direct import (
        covariance_difference,
        mean_difference,
        projection_distance,
        random_basis,
        random_features,
        raw_difference_pca,
        shuffled_labels,
    )
    from safesail.alignment._evaluation import Evaluation, Generator, System, evaluate
    from safesail.alignment._facts import ContrastTexts, Facts, measure_facts
    from safesail.alignment._figures import Figures, Safety
    from safesail.alignment._fill import fill_subspace
    from safesail.alignment._generation import Likelihood, ModelAnswers, Reply
    from safesail.alignment._grades import Grade, Grading, grade_answers
    from safesail.alignment._inspect import FeatureDirections, inspect_adapter
    from safesail.alignment._intervals import Estimate
    from safesail.alignment._measures import GradedReply
    from safesail.alignment._prompts import EvaluationPrompt, read_prompts
    from safesail.alignment._provenance import LayerRecord, ModuleRecord, Provenance, base_checksum
    from safesail.alignment._readings import (
        AdapterReading,
        FeatureShare,
        ModuleReading,
        SaeReading,
        SpanShare,
    )
    from safesail.alignment._reduce import (
        Reduction,
        layer_from_features,
        reduce_pca80,
        reduce_weighted,
    )
    from safesail.alignment._refusals import read_refusal
    from safesail.alignment._report import (
        answer_rows,
        evaluation_page,
        figure_rows,
        write_evaluation,
    )
    from safesail.alignment._routes import layer_by_route
    from safesail.alignment._runs import Beginning, ComparisonSettings
    from safesail.alignment._saving import load_adapter, provenance_of, save_adapter
    from safesail.alignment._sites import ROLES, Site, find_sites, roles_of
    from safesail.alignment._streams import StreamSite, stream_site
    from safesail.alignment._subspace import LayerSubspace, Subspace, SubspaceFeature
    from safesail.alignment._trainer import LossPoint
    from safesail.alignment._training import Trained, TrainingOptions, fit, train_adapter

__all__ = [
    "ROLES",
    "AdapterReading",
    "Advice",
    "Beginning",
    "Comparison",
    "ComparisonSettings",
    "ContrastTexts",
    "Estimate",
    "Evaluation",
    "EvaluationPrompt",
    "Example",
    "Facts",
    "FeatureContrast",
    "FeatureDirections",
    "FeatureShare",
    "Figures",
    "Generator",
    "Grade",
    "GradedReply",
    "Grading",
    "LayerRecord",
    "LayerSubspace",
    "Likelihood",
    "LossPoint",
    "ModelAnswers",
    "ModuleReading",
    "ModuleRecord",
    "Provenance",
    "Reduction",
    "Reply",
    "SaeReading",
    "Safety",
    "Site",
    "SpanShare",
    "StreamSite",
    "Subspace",
    "SubspaceFeature",
    "System",
    "Trained",
    "TrainingOptions",
    "adapter_parameters",
    "advise",
    "answer_rows",
    "base_checksum",
    "check_comparison",
    "compare",
    "contrast_features",
    "covariance_difference",
    "encode_examples",
    "encode_prompt",
    "evaluate",
    "evaluation_page",
    "figure_rows",
    "fill_subspace",
    "find_sites",
    "fit",
    "grade_answers",
    "inspect_adapter",
    "layer_by_route",
    "layer_from_features",
    "load_adapter",
    "make_adapter",
    "make_plain_adapter",
    "mean_difference",
    "measure_facts",
    "mix",
    "projection_distance",
    "provenance_of",
    "random_basis",
    "random_features",
    "raw_difference_pca",
    "read_examples",
    "read_prompts",
    "read_refusal",
    "reduce_pca80",
    "reduce_weighted",
    "roles_of",
    "save_adapter",
    "shuffled_labels",
    "stream_site",
    "train_adapter",
    "write_evaluation",
]

_HOMES = {
    "ROLES": "_sites",
    "AdapterReading": "_readings",
    "Advice": "_advice",
    "Beginning": "_runs",
    "Comparison": "_comparison",
    "ComparisonSettings": "_runs",
    "ContrastTexts": "_facts",
    "Estimate": "_intervals",
    "Evaluation": "_evaluation",
    "EvaluationPrompt": "_prompts",
    "Example": "_data",
    "Facts": "_facts",
    "FeatureContrast": "_contrast",
    "FeatureDirections": "_inspect",
    "FeatureShare": "_readings",
    "Figures": "_figures",
    "Generator": "_evaluation",
    "Grade": "_grades",
    "GradedReply": "_measures",
    "Grading": "_grades",
    "LayerRecord": "_provenance",
    "LayerSubspace": "_subspace",
    "Likelihood": "_generation",
    "LossPoint": "_trainer",
    "ModelAnswers": "_generation",
    "ModuleReading": "_readings",
    "ModuleRecord": "_provenance",
    "Provenance": "_provenance",
    "Reduction": "_reduce",
    "Reply": "_generation",
    "SaeReading": "_readings",
    "Safety": "_figures",
    "Site": "_sites",
    "SpanShare": "_readings",
    "StreamSite": "_streams",
    "Subspace": "_subspace",
    "SubspaceFeature": "_subspace",
    "System": "_evaluation",
    "Trained": "_training",
    "TrainingOptions": "_training",
    "adapter_parameters": "_adapter",
    "advise": "_advice",
    "answer_rows": "_report",
    "base_checksum": "_provenance",
    "check_comparison": "_comparison",
    "compare": "_comparison",
    "contrast_features": "_contrast",
    "covariance_difference": "_direct",
    "encode_examples": "_data",
    "encode_prompt": "_data",
    "evaluate": "_evaluation",
    "evaluation_page": "_report",
    "figure_rows": "_report",
    "fill_subspace": "_fill",
    "find_sites": "_sites",
    "fit": "_training",
    "grade_answers": "_grades",
    "inspect_adapter": "_inspect",
    "layer_by_route": "_routes",
    "layer_from_features": "_reduce",
    "load_adapter": "_saving",
    "make_adapter": "_adapter",
    "make_plain_adapter": "_adapter",
    "mean_difference": "_direct",
    "measure_facts": "_facts",
    "mix": "_data",
    "projection_distance": "_direct",
    "provenance_of": "_saving",
    "random_basis": "_direct",
    "random_features": "_direct",
    "raw_difference_pca": "_direct",
    "read_examples": "_data",
    "read_prompts": "_prompts",
    "read_refusal": "_refusals",
    "reduce_pca80": "_reduce",
    "reduce_weighted": "_reduce",
    "roles_of": "_sites",
    "save_adapter": "_saving",
    "shuffled_labels": "_direct",
    "stream_site": "_streams",
    "train_adapter": "_training",
    "write_evaluation": "_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
