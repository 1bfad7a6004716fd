"""SAELens before version 6, sparsify, and the transcoders of circuit-tracer."""

from __future__ import annotations

from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import Tensor

from published._common import (
    D_IN,
    WIDTH,
    Published,
    random_weights,
    standard_shapes,
    topk,
    write_json,
)


def sae_lens(root: Path) -> Published:
    """A flat configuration, as SAELens wrote it before version 6."""
    place = "jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre"
    w = random_weights(1, **standard_shapes())
    write_json(root / place / "cfg.json", {
        "model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8,
        "d_in": D_IN, "d_sae": WIDTH, "dtype": "float32", "device": "cpu", "context_size": 128,
    })  # fmt: skip
    save_file(w, root / place / "sae_weights.safetensors")
    return Published(
        "sae_lens",
        "gpt2-small-res-jb:blocks.8.hook_resid_pre",
        place,
        "blocks.8.hook_resid_pre",
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
    )


def sparsify(root: Path) -> Published:
    """sparsify subtracts b_dec whatever normalize_decoder says, takes the ReLU, then the k largest;
    num_latents 0 stands for the expansion factor."""
    place = "EleutherAI/sae-llama-3-8b-32x/layers.10"
    shapes = {"encoder.weight": (WIDTH, D_IN), "encoder.bias": (WIDTH,), "b_dec": (D_IN,)}
    w = random_weights(11, **shapes, W_dec=(WIDTH, D_IN))
    write_json(root / place / "cfg.json", {
        "expansion_factor": WIDTH // D_IN, "normalize_decoder": True, "num_latents": 0, "k": 7,
        "multi_topk": False, "skip_connection": False, "d_in": D_IN,
    })  # fmt: skip
    save_file(w, root / place / "sae.safetensors")
    return Published(
        "sparsify",
        None,
        place,
        "blocks.10.hook_resid_post",
        lambda x: topk((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 7),
        rebuilt=lambda x: (
            topk((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 7) @ w["W_dec"]
            + w["b_dec"]
        ),
    )


def mwhanna(root: Path) -> Published:
    repository = "mwhanna/qwen3-4b-transcoders"
    w = random_weights(12, W_enc=(WIDTH, D_IN), W_dec=(WIDTH, D_IN), b_enc=(WIDTH,), b_dec=(D_IN,))
    (root / repository).mkdir(parents=True)
    save_file(w, root / repository / "layer_18.safetensors")
    stated = {"d_model": D_IN, "d_feature": WIDTH, "batch_size": 128}
    (root / repository / "wanb-config.yaml").write_text(
        yaml.safe_dump({name: {"value": value} for name, value in stated.items()})
    )
    (root / repository / "config.yaml").write_text(yaml.safe_dump({"model_name": "Qwen/Qwen3-4B"}))

    def encode(x: Tensor) -> Tensor:
        return (x @ w["W_enc"].T + w["b_enc"]).relu()

    return Published(
        "mwhanna_transcoder",
        "mwhanna-qwen3-4b-transcoders:layer_18",
        f"{repository}/layer_18.safetensors",
        "blocks.18.mlp.hook_in",
        encode,
        "blocks.18.hook_mlp_out",
        lambda x: encode(x) @ w["W_dec"] + w["b_dec"],
    )
