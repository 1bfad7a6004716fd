"""Safe-SAIL's checkpoints: a torch file with the tensors of one SAE on an MLP's output.

Keys are those of the `sparse_autoencoder` library that trained them. Safe-SAIL (arXiv 2509.18127)
reads `encoder.*` and the pre-encoder bias only; the decoder's keys are the library's.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from safesail.errors import CandidateError

K = 200
"""Active features of Safe-SAIL's published TopK SAEs; the checkpoint does not say."""

_PRE_BIAS = "pre_encoder_bias._bias_reference"
# The library ties both biases; where only one is stored, it is the other too.
_POST_BIASES = ("post_decoder_bias._bias_reference", "tied_bias", _PRE_BIAS)
_PRE_BIASES = (_PRE_BIAS, "tied_bias")
_NEEDED = ("encoder.weight", "encoder.bias", "decoder.weight")


def read_safe_sail(
    path: Path, device: str, *, layer: int | None = None, k: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a checkpoint, as SAELens has them.

    Features are act((x - pre_encoder_bias) @ encoder.weight.T + encoder.bias). `act` keeps the k
    largest and sets what is below zero to zero, or, with `encoder.theta`, keeps what exceeds it.
    Where several features tie for the k-th place Safe-SAIL keeps all, SAELens k.

    Args:
        path: the file.
        device: where the tensors go.
        layer: of the model; by default the file's name tells (`ckpt_layer17.pt`).
        k: active features of a TopK SAE; 200 by default.

    Raises:
        CandidateError: not such a file, of several components, or of an unknown layer.
    """
    tensors = _tensors(path, device)
    encoder, bias, decoder = (_component(tensors[key], key, path) for key in _NEEDED)
    before = _component(*_first(tensors, _PRE_BIASES, path), path)
    after = _component(*_first(tensors, _POST_BIASES, path), path)
    layer = _layer(path) if layer is None else layer
    width, d_in = encoder.shape
    theta = tensors.get("encoder.theta")
    if theta is not None and k is not None:
        raise CandidateError(f"{path} is a JumpReLU SAE (it has encoder.theta): k has no meaning")
    if k is not None and k > width:
        raise CandidateError(f"{path} has {width} features: of those, {k} cannot be active")
    configuration: dict[str, Any] = {
        "architecture": "topk" if theta is None else "jumprelu",
        "d_in": d_in,
        "d_sae": width,
        "dtype": "float32",
        "device": device,
        "apply_b_dec_to_input": torch.equal(before, after),
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",
            "hook_name": f"blocks.{layer}.hook_mlp_out",
            # Safe-SAIL's model, Qwen2.5, has no BOS.
            "prepend_bos": False,
        },
    }
    weights = {"W_enc": encoder.T.contiguous(), "W_dec": decoder.T.contiguous(), "b_dec": after}
    # SAELens subtracts its one outer bias or none: another one is taken into the encoder's bias.
    tied = configuration["apply_b_dec_to_input"]
    weights["b_enc"] = bias if tied else bias - encoder @ before
    if theta is None:
        configuration["k"] = min(K, width) if k is None else k
    else:
        weights["threshold"] = _component(theta, "encoder.theta", path)
        if bool((weights["threshold"] < 0).any()):
            raise CandidateError(
                f"{path} has an encoder.theta below zero: its features can be negative, which no "
                "JumpReLU SAE of SAELens shows"
            )
    return configuration, weights


def _tensors(path: Path, device: str) -> dict[str, Tensor]:
    try:
        # A file of the format before PyTorch 1.6 is no archive and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CandidateError(
            f"{path} is no torch file of tensors alone, so it is not read ({reason})"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    keys = sorted(map(str, found)) if isinstance(found, dict) else [type(found).__name__]
    if not all(isinstance(found, dict) and torch.is_tensor(found.get(key)) for key in _NEEDED):
        raise CandidateError(
            f"{path} is not a Safe-SAIL checkpoint: it lacks one of {', '.join(_NEEDED)}; "
            f"it holds {', '.join(keys[:8])}"
        )
    return {key: value.to(torch.float32) for key, value in found.items() if torch.is_tensor(value)}


def _first(tensors: dict[str, Tensor], keys: tuple[str, ...], path: Path) -> tuple[Tensor, str]:
    for key in keys:
        if key in tensors:
            return tensors[key], key
    raise CandidateError(
        f"{path} is not a Safe-SAIL checkpoint: it lacks {' and '.join(keys)}; "
        f"it holds {', '.join(sorted(tensors)[:8])}"
    )


def _component(tensor: Tensor, key: str, path: Path) -> Tensor:
    """A tensor without the leading axis of components, of which there must be one."""
    plain = 2 if key.endswith("weight") else 1
    if tensor.ndim == plain:
        return tensor
    if tensor.ndim == plain + 1 and len(tensor) == 1:
        return tensor[0]
    raise CandidateError(
        f"{path}: {key} has shape {tuple(tensor.shape)}; only SAEs of one component are read"
    )


def _layer(path: Path) -> int:
    match = re.search(r"layer_?(\d+)", path.stem)
    if match is None:
        raise CandidateError(
            f"{path} does not say its layer: call it ckpt_layer12.pt, or give --layer to "
            "`safesail convert-sae`"
        )
    return int(match[1])
