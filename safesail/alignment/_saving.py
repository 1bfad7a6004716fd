"""Adapters in folders: plain PEFT with a provenance file."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._card import model_card
from safesail.alignment._freeze import freeze
from safesail.alignment._lora_files import check_repeatable, module_of, read_config, reason
from safesail.alignment._plan import import_peft, quiet_peft
from safesail.alignment._provenance import Provenance, base_checksum, precision_of
from safesail.errors import AlignmentError, StorageError
from safesail.study import CONFIGURATION_FILE
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from peft import PeftModel


def save_adapter(
    model: PeftModel,
    folder: Path,
    *,
    training: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a plain PEFT adapter with a provenance file, whole or not at all.

    Args:
        model: of `make_adapter`, `make_plain_adapter` or `load_adapter`.
        folder: that `PeftModel.from_pretrained` will read.
        training: how it was trained, as JSON; what the provenance has already stays without it.
        files: what else goes into the folder, by name; a name may lie in a folder of its own.
        overwrite: replace what is there.

    Raises:
        AlignmentError: the folder exists, or the base's weights are no longer what the adapter
            was made on.
        StorageError: the disk is full or the folder not writable.
    """
    from safetensors import SafetensorError

    check_free(folder, overwrite=overwrite)
    provenance = provenance_of(model)
    if base_checksum(model) != provenance.base_checksum:
        raise AlignmentError(
            "the base's weights have changed since the adapter was made, so it would not do "
            "elsewhere what it does here: make it anew on the base as it is"
        )
    if training is not None:
        provenance = replace(provenance, training=dict(training))
        remember(model, provenance)
    partial = folder.parent / f".{folder.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        # Else PEFT asks the hub whether the vocabulary has changed; embeddings are never adapted.
        model.save_pretrained(str(partial), save_embedding_layers=False)
        provenance.write(partial)
        others = {"README.md": model_card(provenance).encode(), **(files or {})}
        for name, content in others.items():
            write_bytes(partial / name, content)
        _settle(partial)
        # The old one goes when the new one stands: a kill in between loses neither.
        old = folder.parent / f".{folder.name}.replaced"
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    # A full disk has many names; that of safetensors is its own.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StorageError(
            f"could not write {folder}: {error}; free space or mend permissions, then run again"
        ) from error


def load_adapter(model: Any, folder: Path, *, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on its base; a frozen basis is frozen again.

    Args:
        model: the base, without adapters.
        folder: that `save_adapter` wrote.
        trainable: go on training it.

    Raises:
        AlignmentError: the folder is no adapter of safesail, or was made on other weights; or as
            `load_foreign_adapter`.
        StorageError: the provenance file is damaged.
    """
    provenance = Provenance.read(folder)
    same_precision = precision_of(model) == provenance.base_dtype
    if same_precision and base_checksum(model) != provenance.base_checksum:
        raise AlignmentError(
            f"{folder} was made on other weights of {provenance.model!r} than these: load the "
            "model that it was made on"
        )
    loaded = _put_on(model, folder, trainable=trainable)
    planned = {one.module for one in provenance.modules}
    made = {module_of(name) for name, _ in loaded.named_parameters() if ".lora_" in name}
    if planned != made:
        raise AlignmentError(
            f"{folder} is damaged: of {min(planned ^ made)} its provenance and its weights say "
            "different things"
        )
    freeze(loaded, {one.module: one.frozen for one in provenance.modules if one.frozen})
    remember(loaded, provenance)
    return loaded


def load_foreign_adapter(model: Any, folder: Path) -> PeftModel:
    """Put an adapter that PEFT saved, whoever made it, on a base; whole or not at all.

    PEFT itself loads what fits and leaves the rest at its random begin. A base on which this fails
    is to be loaded anew.

    Args:
        model: the base, without adapters.
        folder: with adapter_config.json and adapter_model.safetensors.

    Raises:
        AlignmentError: PEFT is missing, or cannot read the folder; its weights name modules that
            the model lacks, or lack some that its configuration names; its begin changed the
            base's weights in a way that loading does not repeat.
    """
    return _put_on(model, folder, trainable=False)


def provenance_of(model: PeftModel) -> Provenance:
    """Where the adapter of a model comes from.

    Raises:
        AlignmentError: the adapter was not made or loaded by safesail.
    """
    found = getattr(model, "safesail_provenance", None)
    if not isinstance(found, Provenance):
        raise AlignmentError("this adapter was not made here: use make_adapter or load_adapter")
    return found


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that exists, and one that holds anything but an adapter in any case.

    Raises:
        AlignmentError: it does, and is not to be overwritten, or is not an adapter's.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not _is_adapter(folder)):
        raise AlignmentError(
            f"{folder} holds something else than an adapter, which is never replaced: give "
            "another folder"
        )
    if not overwrite:
        raise AlignmentError(f"{folder} exists already: give another folder, or --overwrite")


def _put_on(model: Any, folder: Path, *, trainable: bool) -> PeftModel:
    config = read_config(folder)
    check_repeatable(config, folder)
    peft = import_peft()
    try:
        with quiet_peft(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            loaded: PeftModel = peft.PeftModel.from_pretrained(
                model, str(folder), is_trainable=trainable
            )
            # What did not fit is told when weights are loaded into an adapter that is there.
            result = loaded.load_adapter(str(folder), "default", is_trainable=trainable)
    except Exception as error:  # PEFT, safetensors and torch raise classes of many kinds
        raise AlignmentError(f"cannot load adapter {folder}: {reason(error)}") from error
    # Prompt learning keeps its weights elsewhere, so that all of them look unknown.
    if result.unexpected_keys and not config.is_prompt_learning:
        raise AlignmentError(
            f"{folder} changes {_some(result.unexpected_keys)}, which this model has not: give the "
            "model that it was made for"
        )
    if result.missing_keys:
        raise AlignmentError(
            f"{folder} is damaged: it has no weights of {_some(result.missing_keys)}, which its "
            "configuration names"
        )
    return loaded


def _some(parameters: Sequence[str]) -> str:
    modules = sorted({module_of(name) for name in parameters})
    rest = f" and {len(modules) - 1} more" if len(modules) > 1 else ""
    return f"{modules[0]}{rest}"


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and not (folder / CONFIGURATION_FILE).exists()


def _settle(folder: Path) -> None:
    """Make files ordinary and durable before a rename makes them count."""
    # safetensors makes files that only their owner may read.
    mode = (folder / "adapter_config.json").stat().st_mode
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        path.chmod(mode)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def remember(model: Any, provenance: Provenance) -> None:
    """Let a model know where its adapter comes from."""
    model.safesail_provenance = provenance
