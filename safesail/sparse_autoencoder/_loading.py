"""Read an SAE in any known layout into SAELens' object, and say in one line why that failed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safesail.errors import CandidateError
from safesail.sparse_autoencoder._candidates import Candidate
from safesail.sparse_autoencoder._formats import (
    CONFIGURATION_FILE,
    LAYOUTS,
    SAE_LENS,
    SAFE_SAIL,
    WEIGHTS_FILE,
    check_readable,
    layout_of,
)
from safesail.sparse_autoencoder._layout_checks import check_configuration, check_shapes
from safesail.sparse_autoencoder._local import read_local
from safesail.sparse_autoencoder._safe_sail import K, read_safe_sail

ARCHITECTURES = (
    "standard",
    "jumprelu",
    "gated",
    "topk",
    "abstopk",
    "matching_pursuit",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
"""SAELens' names of what is encoded and rebuilt token by token."""

# SAELens folds these into the weights when training ends; at run time it ignores them.
_UNFOLDED = ("expected_average_only_in", "covariance_whitening")

Parts = tuple[dict[str, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class LoadedSae:
    """SAELens' object in float32.

    Attributes:
        sae: of SAELens.
        layout: that it was read from.
        warnings: that reading it gave.
    """

    sae: Any
    layout: str
    warnings: list[str]


def load(
    candidate: Candidate,
    device: str,
    *,
    layout: str | None = None,
    layer: int | None = None,
    k: int | None = None,
) -> LoadedSae:
    """Read a candidate.

    Args:
        candidate: of `find_candidates`.
        device: where the weights go.
        layout: of a local candidate; by default its files tell.
        layer: of a Safe-SAIL checkpoint; by default its name tells.
        k: of a Safe-SAIL checkpoint; 200 by default.

    Raises:
        CandidateError: see `SparseAutoencoder.load`.
    """
    path = candidate.folder
    if path is not None:
        layout = layout or layout_of(path)
    else:
        layout = candidate.entry.loader if candidate.entry else SAE_LENS
    place = str(path) if path is not None else candidate.entry.path if candidate.entry else ""
    check_readable(layout, place, candidate.source)
    if layout == SAE_LENS and path is not None:
        _check_folder(path)
    # After the checks, as these imports take seconds.
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            if path is not None:
                sae = _from_disk(path, layout, device, layer, k)
            else:
                sae = _from_hub(candidate, layout, device)
        except CandidateError:
            raise
        except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) as error:
            raise CandidateError(
                f"SAE {candidate.source} cannot be fetched from the Hugging Face hub "
                f"({_first_line(error)}): check its name and the network"
            ) from error
        except Exception as error:  # SAELens, safetensors and torch raise classes of many kinds
            raise CandidateError(
                f"SAE {candidate.source} cannot be loaded: {_first_line(error)}; "
                "are its files whole, and do configuration and weights belong together?"
            ) from error
    _check(sae, candidate.source)
    messages = [
        _first_line(warning.message)
        for warning in caught
        if issubclass(warning.category, UserWarning)
        and "model_from_pretrained_kwargs" not in str(warning.message)
    ]
    if layout == SAFE_SAIL and sae.cfg.architecture() == "topk" and k is None:
        messages.append(
            f"its k is taken as {K}, as in Safe-SAIL's publication, for the checkpoint does not "
            "say: for another, convert it with `safesail convert-sae --k`"
        )
    return LoadedSae(sae, layout, messages)


def _from_disk(path: Path, layout: str, device: str, layer: int | None, k: int | None) -> Any:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    def read(folder: Any, device: str, cfg_overrides: dict[str, Any] | None) -> Parts:
        overrides = cfg_overrides or {}
        if layout == SAFE_SAIL:
            parts = read_safe_sail(path, device, layer=layer, k=k)
        elif layout == SAE_LENS:
            parts = sae_lens_disk_loader(path, device, overrides)
        else:
            overrides |= check_configuration(layout, _reader(path), str(path))
            parts = read_local(path, layout, device, overrides)
        return _sized(layout, parts, str(path))

    sae = SAE.load_from_disk(path, device=device, dtype="float32", converter=read)
    if sae.cfg.normalize_activations == "expected_average_only_in":
        factor = _norm_factor(path, layout)
        if factor is not None:
            sae.fold_activation_norm_scaling_factor(factor)
    return sae


def _from_hub(candidate: Candidate, layout: str, device: str) -> Any:
    from huggingface_hub import hf_hub_download
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

    def read(
        repo_id: str,
        folder_name: str,
        device: str,
        force_download: bool,
        cfg_overrides: dict[str, Any] | None,
    ) -> tuple[dict[str, Any], dict[str, Tensor], Tensor | None]:
        def fetch(name: str) -> str:
            file = hf_hub_download(repo_id, f"{folder_name}/{name}")
            return Path(file).read_text(encoding="utf-8")

        overrides = cfg_overrides or {}
        overrides |= check_configuration(layout, fetch, candidate.source)
        configuration, weights, sparsity = NAMED_PRETRAINED_SAE_LOADERS[layout](
            repo_id, folder_name, device, force_download, overrides
        )
        return *_sized(layout, (configuration, weights), candidate.source), sparsity

    return SAE.from_pretrained(
        candidate.release, candidate.sae_id, device=device, dtype="float32", converter=read
    )


def _reader(path: Path) -> Callable[[str], str]:
    return lambda name: (path / name).read_text(encoding="utf-8")


def _sized(layout: str, parts: Parts, source: str) -> Parts:
    """Sizes by the weights where SAELens guesses them, and checked against them elsewhere."""
    configuration, weights = parts
    if LAYOUTS[layout].sized_by_name and "W_enc" in weights:
        d_in, width = weights["W_enc"].shape
        if layout == "sparsify" and weights["W_dec"].shape == (d_in, width):
            # sparsify stores it as SAELens has it; SAELens' loader turns it round.
            weights["W_dec"] = weights["W_dec"].T
        configuration |= {"d_in": d_in, "d_sae": width}
        if "d_out" in configuration and "W_dec" in weights:
            configuration["d_out"] = weights["W_dec"].shape[-1]
    check_shapes(configuration, weights, source)
    return configuration, weights


def _norm_factor(path: Path, layout: str) -> float | None:
    """What a local copy's activations are scaled by, where its files or SAELens' directory say.

    Llama Scope scales to a mean norm of sqrt(d), as its loader in SAELens computes it.
    """
    from sae_lens.loading.pretrained_saes_directory import get_norm_scaling_factor

    from safesail.sparse_autoencoder._directory import directory

    if layout == "llama_scope":
        stated = json.loads((path / "hyperparams.json").read_text(encoding="utf-8"))
        size, norm = stated["d_model"], stated["dataset_average_activation_norm"]["in"]
        return float(size**0.5 / norm)
    for entry in directory():
        if entry.loader == layout != SAE_LENS and path.as_posix().endswith(f"/{entry.path}"):
            factor: float | None = get_norm_scaling_factor(entry.release, entry.sae_id)
            return factor
    return None


def _check_folder(folder: Path) -> None:
    path = folder / CONFIGURATION_FILE
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CandidateError(f"{path} is not JSON: {_first_line(error)}") from error
    if not isinstance(configuration, dict):
        raise CandidateError(f"{path} holds no JSON object")
    _check_architecture(configuration.get("architecture", "standard"), str(folder))
    if not (folder / WEIGHTS_FILE).is_file():
        raise CandidateError(f"{folder} holds no weights: {WEIGHTS_FILE} is missing")


def _check_architecture(architecture: str, source: str) -> None:
    if architecture in ARCHITECTURES:
        return
    if "batchtopk" in str(architecture):
        raise CandidateError(
            f"SAE {source} is saved in its training form ({architecture}), whose features depend "
            "on the batch: export it with SAELens' `save_inference_model`"
        )
    raise CandidateError(
        f"SAE {source} has architecture {architecture!r}; safesail ranks SAEs and transcoders "
        f"whose features depend on one token: {', '.join(ARCHITECTURES)}"
    )


def _check(sae: Any, source: str) -> None:
    _check_architecture(sae.cfg.architecture(), source)
    normalisation = sae.cfg.normalize_activations
    if normalisation in _UNFOLDED:
        raise CandidateError(
            f"SAE {source} expects normalize_activations {normalisation!r}, whose scale is not "
            "in the checkpoint: fold it into the weights with SAELens and save it again"
        )
    if not all(bool(torch.isfinite(value).all()) for value in sae.state_dict().values()):
        raise CandidateError(f"the weights of SAE {source} hold NaN or infinite numbers")


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
