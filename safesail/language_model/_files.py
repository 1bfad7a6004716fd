"""Where a model's files lie, and what identifies them. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from safesail.errors import ModelError
from safesail.fingerprint import fingerprint_files
from safesail.language_model.names import official_name

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_DESCRIPTIONS = ("config.json", "tokenizer.json")


def model_folder(reference: str, folder: Path | None) -> Path | None:
    """The folder that a reference names; None where it is a name on the hub.

    Raises:
        ModelError: it looks like a path, but there is no such folder.
    """
    path = ((folder or Path()) / Path(reference).expanduser()).resolve()
    if path.is_dir():
        return path
    if reference.startswith((".", "/", "~")) or reference.count("/") > 1 or "\\" in reference:
        raise ModelError(f"model folder {path} does not exist: mend `model.name`")
    return None


def fingerprint_folder(path: Path) -> str:
    """Digest of a model folder's description, tokenizer and weights.

    Raises:
        ModelError: the folder holds no model.
    """
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is not a model: no config.json; give a folder of transformers")
    weights = {file for pattern in _WEIGHTS for file in path.glob(pattern)}
    if not weights:
        raise ModelError(f"{path} holds no weights (model.safetensors): copy them there")
    described = [path / name for name in _DESCRIPTIONS if (path / name).is_file()]
    return fingerprint_files([*described, *weights])


def fingerprint_model(reference: str, *, folder: Path | None = None) -> str | None:
    """What identifies a model's files, without loading it: as `LanguageModel.fingerprint`.

    Args:
        reference: as for `LanguageModel.load`.
        folder: base of relative paths.

    Returns:
        None for a model on the hub that is not on this machine yet.

    Raises:
        ModelError: a folder is missing or holds no model.
    """
    path = model_folder(reference, folder)
    if path is not None:
        return fingerprint_folder(path)
    from huggingface_hub import try_to_load_from_cache

    name = official_name(reference)
    configuration = try_to_load_from_cache(name, "config.json")
    if not isinstance(configuration, str):
        return None
    # The hub's cache keeps a file in a folder named after the commit.
    return f"{name}@{Path(configuration).parent.name}"
