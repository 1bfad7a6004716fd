"""Gemma Scope 1 and 2, with their transcoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from published._common import (
    D_IN,
    WIDTH,
    Published,
    jumprelu,
    random_weights,
    standard_shapes,
    write_json,
)


def _npz(file: Path, seed: int) -> dict[str, Tensor]:
    w = random_weights(seed, **standard_shapes(), threshold=(WIDTH,))
    w["threshold"] = w["threshold"].abs() + 0.4
    file.parent.mkdir(parents=True)
    np.savez(file, **{name: value.numpy() for name, value in w.items()})
    return w


def gemma_2(root: Path) -> Published:
    place = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
    w = _npz(root / place / "params.npz", 2)
    return Published(
        "gemma_2",
        "gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82",
        place,
        "blocks.12.hook_resid_post",
        jumprelu(w["W_enc"], w["b_enc"], w["threshold"]),
    )


def gemma_2_transcoder(root: Path) -> Published:
    place = "google/gemma-scope-2b-pt-transcoders/layer_13/width_16k/average_l0_8"
    w = _npz(root / place / "params.npz", 3)
    encode = jumprelu(w["W_enc"], w["b_enc"], w["threshold"])
    return Published(
        "gemma_2_transcoder",
        "gemma-scope-2b-pt-transcoders:layer_13/width_16k/average_l0_8",
        place,
        "blocks.13.ln2.hook_normalized",
        encode,
        "blocks.13.hook_mlp_out",
        lambda x: encode(x) @ w["W_dec"] + w["b_dec"],
    )


def _gemma_3_weights(file: Path, seed: int, **more: tuple[int, ...]) -> dict[str, Tensor]:
    shapes = {name.lower(): shape for name, shape in standard_shapes().items()}
    w = random_weights(seed, **shapes, threshold=(WIDTH,), **more)
    w["threshold"] = w["threshold"].abs() + 0.4
    file.parent.mkdir(parents=True)
    save_file(w, file)
    return w


def gemma_3(root: Path) -> Published:
    place = "google/gemma-scope-2-270m-pt/resid_post/layer_5_width_16k_l0_big"
    w = _gemma_3_weights(root / place / "params.safetensors", 4)
    write_json(root / place / "config.json", {
        "architecture": "jump_relu", "model_name": "gemma-v3-270m-pt",
        "hf_hook_point_in": "model.layers.5.output",
    })  # fmt: skip
    return Published(
        "gemma_3",
        "gemma-scope-2-270m-pt-res:layer_5_width_16k_l0_big",
        place,
        "blocks.5.hook_resid_post",
        jumprelu(w["w_enc"], w["b_enc"], w["threshold"]),
    )


def gemma_3_transcoder(root: Path) -> Published:
    """With an affine connection; without config.json, as some of them are."""
    name = "transcoder/layer_9_width_16k_l0_small_affine"
    place = f"google/gemma-scope-2-270m-pt/{name}"
    more = {"affine_skip_connection": (D_IN, D_IN)}
    w = _gemma_3_weights(root / place / "params.safetensors", 5, **more)
    encode = jumprelu(w["w_enc"], w["b_enc"], w["threshold"])
    return Published(
        "gemma_3",
        f"gemma-scope-2-270m-pt-transcoders:{name}",
        place,
        "blocks.9.mlp.hook_in",
        encode,
        "blocks.9.hook_mlp_out",
        lambda x: encode(x) @ w["w_dec"] + w["b_dec"] + x @ w["affine_skip_connection"],
    )
