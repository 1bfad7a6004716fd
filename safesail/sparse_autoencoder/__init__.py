"""Sparse autoencoders: find candidates, load and check them, encode all features or a few.

The names below load on first use: the directory of published SAEs can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.sparse_autoencoder._candidates import Candidate, find_candidates
    from safesail.sparse_autoencoder._directory import DirectoryEntry, directory
    from safesail.sparse_autoencoder._sparse_autoencoder import SparseAutoencoder

__all__ = ["Candidate", "DirectoryEntry", "SparseAutoencoder", "directory", "find_candidates"]

_HOMES = {
    "Candidate": "_candidates",
    "DirectoryEntry": "_directory",
    "SparseAutoencoder": "_sparse_autoencoder",
    "directory": "_directory",
    "find_candidates": "_candidates",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
