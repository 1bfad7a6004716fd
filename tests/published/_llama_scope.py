"""Llama Scope and Llama Scope R1."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from published._common import (
    D_IN,
    WIDTH,
    Published,
    jumprelu,
    linear_layers,
    random_weights,
    write_json,
)


def llama_scope(root: Path) -> Published:
    """Inputs are scaled to a mean norm of sqrt(d); the threshold is scaled as SAELens does."""
    scale = 5.278350515463917  # of this SAE, in SAELens' directory
    place = "fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L16R-8x"
    w = linear_layers(6)
    write_json(root / place / "hyperparams.json", {
        "d_model": D_IN, "d_sae": WIDTH, "jump_relu_threshold": 0.2,
        "hook_point_in": "blocks.16.hook_resid_post",
        "dataset_average_activation_norm": {"in": D_IN**0.5 / scale},
    })  # fmt: skip
    (root / place / "checkpoints").mkdir()
    save_file(w, root / place / "checkpoints" / "final.safetensors")
    encode = jumprelu(w["encoder.weight"].T, w["encoder.bias"], torch.tensor(0.2 * scale))
    return Published(
        "llama_scope",
        "llama_scope_lxr_8x:l16r_8x",
        place,
        "blocks.16.hook_resid_post",
        lambda x: encode(x * scale),
    )


def llama_scope_r1(root: Path) -> Published:
    scale = 4.79639347416429  # of this SAE, in SAELens' directory
    place = "fnlp/Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L16R"
    w = linear_layers(7) | random_weights(8, log_jumprelu_threshold=(WIDTH,))
    write_json(root / place / "config.json", {
        "d_model": D_IN, "expansion_factor": WIDTH // D_IN,
        "hook_point_in": "blocks.16.hook_resid_post",
    })  # fmt: skip
    save_file(w, root / place / "sae_weights.safetensors")
    threshold = w["log_jumprelu_threshold"].exp()
    encode = jumprelu(w["encoder.weight"].T, w["encoder.bias"], threshold)
    return Published(
        "llama_scope_r1_distill",
        "llama_scope_r1_distill:l16r_400m_slimpajama_400m_openr1_math",
        place,
        "blocks.16.hook_resid_post",
        lambda x: encode(x * scale),
    )
