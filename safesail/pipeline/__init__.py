"""The stages of a study in order: what is up to date, what must run first.

Each stage reads the files of the one before and writes its own with the settings that made them.
A stage whose settings have not changed does only what is missing.
"""

from safesail.pipeline._align import (
    AdapterSettings,
    Alignment,
    find_subspace,
    read_data,
    source_of,
    train_in,
)
from safesail.pipeline._collect import Collection, collect
from safesail.pipeline._compare import METHODS, compare_in, comparison_notes
from safesail.pipeline._concepts import AcceptedConcept, accept_concept, generate_concept
from safesail.pipeline._diagnose import Diagnoser
from safesail.pipeline._doctor import Check, check_setup
from safesail.pipeline._evaluate import evaluate_in, inspect_in
from safesail.pipeline._explain import Explanations, explain
from safesail.pipeline._export import Exported, export_folder, push_dataset
from safesail.pipeline._import import Imported, import_explanations
from safesail.pipeline._intervene import intervene
from safesail.pipeline._landscape import feature_map, landscape
from safesail.pipeline._qualify import qualify
from safesail.pipeline._rank import rank
from safesail.pipeline._release import WrittenRelease, write_release
from safesail.pipeline._release_reading import Release, load_release
from safesail.pipeline._results import FeatureResults, load_feature, load_results
from safesail.pipeline._selection import Selection
from safesail.pipeline._shards import collect_shard, merge_shards
from safesail.pipeline._start import StartedStudy, start_study
from safesail.pipeline._subspace import ContrastData, SubspaceSettings
from safesail.pipeline._summary import summarize
from safesail.pipeline._sweep import Sweep
from safesail.pipeline._train import Training, TrainingProgress, train_saes

__all__ = [
    "METHODS",
    "AcceptedConcept",
    "AdapterSettings",
    "Alignment",
    "Check",
    "Collection",
    "ContrastData",
    "Diagnoser",
    "Explanations",
    "Exported",
    "FeatureResults",
    "Imported",
    "Release",
    "Selection",
    "StartedStudy",
    "SubspaceSettings",
    "Sweep",
    "Training",
    "TrainingProgress",
    "WrittenRelease",
    "accept_concept",
    "check_setup",
    "collect",
    "collect_shard",
    "compare_in",
    "comparison_notes",
    "evaluate_in",
    "explain",
    "export_folder",
    "feature_map",
    "find_subspace",
    "generate_concept",
    "import_explanations",
    "inspect_in",
    "intervene",
    "landscape",
    "load_feature",
    "load_release",
    "load_results",
    "merge_shards",
    "push_dataset",
    "qualify",
    "rank",
    "read_data",
    "source_of",
    "start_study",
    "summarize",
    "train_in",
    "train_saes",
    "write_release",
]
