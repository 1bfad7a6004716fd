"""Write an SAE of any layout as a SAELens folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from safesail.errors import CandidateError, StorageError
from safesail.sparse_autoencoder._candidates import Candidate
from safesail.sparse_autoencoder._formats import CONFIGURATION_FILE, LAYOUTS, SAFE_SAIL
from safesail.sparse_autoencoder._loading import load


def convert(
    source: Path | Candidate,
    target: Path,
    *,
    layout: str | None = None,
    layer: int | None = None,
    k: int | None = None,
    model: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an SAE as a folder that SAELens loads, in float32, whole or not at all.

    Its features are those of `SparseAutoencoder.encode` on the source.

    Args:
        source: folder or file in a layout of docs/saes.md, or a candidate, which may be published.
        target: folder to write.
        layout: of the source; by default its files tell.
        layer: of a Safe-SAIL checkpoint; by default its name tells.
        k: active features of a Safe-SAIL TopK checkpoint; 200 by default.
        model: name of the model that the SAE was trained on, where the source lacks it.
        overwrite: replace what is at the target.

    Returns:
        The target.

    Raises:
        CandidateError: the source cannot be read, or something is at the target already.
        StorageError: the target cannot be written.
    """
    if layout is not None and layout not in LAYOUTS:
        raise CandidateError(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    if target.exists() and not overwrite:
        raise CandidateError(f"{target} exists: add --overwrite to replace it")
    if target.is_file() or (target.is_dir() and not _is_ours(target)):
        raise CandidateError(f"{target} holds no SAE: it is not replaced; give another folder")
    candidate = source if isinstance(source, Candidate) else _local(source.resolve())
    loaded = load(candidate, "cpu", layout=layout, layer=layer, k=k)
    if loaded.layout != SAFE_SAIL and not (layer is None and k is None):
        raise CandidateError(
            f"{candidate.source} says its own layer and k: only Safe-SAIL's do not"
        )
    from sae_lens import __version__

    sae = loaded.sae
    metadata = sae.cfg.metadata
    # What is written is written as this version does, whatever wrote the source.
    metadata.sae_lens_version = __version__
    if model is not None:
        metadata.model_name = model
    for parameter in sae.parameters():
        parameter.data = parameter.data.contiguous()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".safesail-", dir=target.parent) as place:
            sae.save_model(Path(place) / "new")
            if target.exists():
                os.rename(target, Path(place) / "old")
            os.rename(Path(place) / "new", target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _local(path: Path) -> Candidate:
    return Candidate(name=path.name, source=str(path), folder=path)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty or holds an SAE of SAELens: anything else is not replaced."""
    return (folder / CONFIGURATION_FILE).is_file() or not any(folder.iterdir())
