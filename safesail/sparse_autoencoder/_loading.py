"""Load an SAE through SAELens and say in one line why that failed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from safesail.errors import CandidateError
from safesail.sparse_autoencoder._candidates import (
    CONFIGURATION_FILE,
    WEIGHTS_FILE,
    Candidate,
)

_SUPPORTED = ("standard", "jumprelu", "gated", "topk", "abstopk", "matching_pursuit")
# SAELens folds these into the weights when training ends; at run time it ignores them.
_UNFOLDED = ("expected_average_only_in", "covariance_whitening")


def load(candidate: Candidate, device: str) -> tuple[Any, list[str]]:
    """SAELens' object in float32, and the warnings that loading gave.

    Raises:
        CandidateError: see `SparseAutoencoder.load`.
    """
    if candidate.folder is not None:
        _check_folder(candidate.folder)
    # After the checks, as these imports take seconds.
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from sae_lens import SAE

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            if candidate.folder is not None:
                sae = SAE.load_from_disk(candidate.folder, device=device, dtype="float32")
            else:
                sae = SAE.from_pretrained(
                    candidate.release, candidate.sae_id, device=device, dtype="float32"
                )
        except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) as error:
            raise CandidateError(
                f"SAE {candidate.source} cannot be fetched from the Hugging Face hub "
                f"({_first_line(error)}): check its name and the network"
            ) from error
        except Exception as error:  # SAELens, safetensors and torch raise classes of many kinds
            raise CandidateError(
                f"SAE {candidate.source} cannot be loaded: {_first_line(error)}; "
                "are its files whole, and do cfg.json and weights belong together?"
            ) from error
    _check(sae, candidate.source)
    # Activations come with heads flattened, as the weights have them.
    sae.turn_off_forward_pass_hook_z_reshaping()
    sae.eval().requires_grad_(False)
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        # The same function with the norms in the weights: two passes over all features fewer.
        sae.fold_W_dec_norm()
        sae.cfg.rescale_acts_by_decoder_norm = False
    messages = [
        _first_line(warning.message)
        for warning in caught
        if issubclass(warning.category, UserWarning)
        and "model_from_pretrained_kwargs" not in str(warning.message)
    ]
    return sae, messages


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise CandidateError(f"SAE folder {folder} does not exist")
    path = folder / CONFIGURATION_FILE
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CandidateError(
            f"{folder} is not an SAE: no cfg.json; give a folder saved by SAELens"
        ) from None
    except (ValueError, OSError) as error:
        raise CandidateError(f"{path} is not JSON: {_first_line(error)}") from error
    if not isinstance(configuration, dict):
        raise CandidateError(f"{path} holds no JSON object")
    _check_architecture(configuration.get("architecture", "standard"), str(folder))
    if not (folder / WEIGHTS_FILE).is_file():
        raise CandidateError(f"{folder} holds no weights: {WEIGHTS_FILE} is missing")


def _check_architecture(architecture: str, source: str) -> None:
    if architecture in _SUPPORTED:
        return
    if "batchtopk" in str(architecture):
        raise CandidateError(
            f"SAE {source} is saved in its training form ({architecture}), whose features depend "
            "on the batch: export it with SAELens' `save_inference_model`"
        )
    raise CandidateError(
        f"SAE {source} has architecture {architecture!r}; safesail ranks SAEs that rebuild, token "
        f"by token, what they read: {', '.join(_SUPPORTED)}"
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
