"""Sparse autoencoders: find candidates, load and check them, encode all features or a few.

The names below load on first use: the directory of published SAEs can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.sparse_autoencoder._candidates import Candidate, find_candidates
    from safesail.sparse_autoencoder._convert import convert
    from safesail.sparse_autoencoder._directory import DirectoryEntry, directory
    from safesail.sparse_autoencoder._downloads import Downloads, pending_downloads
    from safesail.sparse_autoencoder._filters import SaeFilter
    from safesail.sparse_autoencoder._memory import memory_limit
    from safesail.sparse_autoencoder._sparse_autoencoder import SparseAutoencoder
    from safesail.sparse_autoencoder._train import TrainedSae, TrainingStep, train_sae
    from safesail.sparse_autoencoder._train_architectures import untrained_sae
    from safesail.sparse_autoencoder._train_data import (
        Activations,
        ActivationWriter,
        read_activations,
    )
    from safesail.sparse_autoencoder._train_recipe import (
        PENALISED,
        USUAL_EXPANSION,
        Recipe,
        site_hook_point,
        usual_learning_rate,
    )
    from safesail.sparse_autoencoder._train_record import (
        SETTINGS_KEY,
        trained_folders,
        training_record,
    )

__all__ = [
    "PENALISED",
    "SETTINGS_KEY",
    "USUAL_EXPANSION",
    "ActivationWriter",
    "Activations",
    "Candidate",
    "DirectoryEntry",
    "Downloads",
    "Recipe",
    "SaeFilter",
    "SparseAutoencoder",
    "TrainedSae",
    "TrainingStep",
    "convert",
    "directory",
    "find_candidates",
    "memory_limit",
    "pending_downloads",
    "read_activations",
    "site_hook_point",
    "train_sae",
    "trained_folders",
    "training_record",
    "untrained_sae",
    "usual_learning_rate",
]

_HOMES = {
    "PENALISED": "_train_recipe",
    "SETTINGS_KEY": "_train_record",
    "USUAL_EXPANSION": "_train_recipe",
    "ActivationWriter": "_train_data",
    "Activations": "_train_data",
    "Candidate": "_candidates",
    "DirectoryEntry": "_directory",
    "Downloads": "_downloads",
    "Recipe": "_train_recipe",
    "SaeFilter": "_filters",
    "SparseAutoencoder": "_sparse_autoencoder",
    "TrainedSae": "_train",
    "TrainingStep": "_train",
    "convert": "_convert",
    "directory": "_directory",
    "find_candidates": "_candidates",
    "memory_limit": "_memory",
    "pending_downloads": "_downloads",
    "read_activations": "_train_data",
    "site_hook_point": "_train_recipe",
    "train_sae": "_train",
    "trained_folders": "_train_record",
    "training_record": "_train_record",
    "untrained_sae": "_train_architectures",
    "usual_learning_rate": "_train_recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
