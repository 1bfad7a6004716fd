"""The lab: a planted world whose truth is known, a small language model and autoencoders of it.

`world` writes the labelled English documents, `language_model` and `autoencoders` train on them,
`truth` measures what a feature or a word list knows of the planted concepts, and `build` makes
every file of `data/lab` from one seed. The demo, the tests and the benchmarks use those files.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["contrast_pairs_file", "lab_folder"]


def _data_folder() -> Path:
    return Path(str(files("safesail.data")))


def lab_folder() -> Path:
    """Folder with the lab's model, autoencoders, corpus, held-out text and vocabulary."""
    return _data_folder() / "lab"


def contrast_pairs_file() -> Path:
    """JSONL file with the lab's contrast pairs (keys concept, positive, negative)."""
    return _data_folder() / "concepts" / "lab.jsonl"
