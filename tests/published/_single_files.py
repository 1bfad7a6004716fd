"""SAEs that their makers published as one checkpoint."""

from __future__ import annotations

from pathlib import Path

from published._common import (
    D_IN,
    WIDTH,
    Published,
    linear_layers,
    random_weights,
    standard_shapes,
    topk,
    write_checkpoint,
    write_json,
)


def deepseek(root: Path) -> Published:
    name = "DeepSeek-R1-Distill-Llama-8B-SAE-l19"
    w = linear_layers(9)
    write_checkpoint(root, f"qresearch/{name}/{name}.pt", w)
    return Published(
        "deepseek_r1",
        "deepseek-r1-distill-llama-8b-qresearch:blocks.19.hook_resid_post",
        f"qresearch/{name}/{name}.pt",
        "blocks.19.hook_resid_post",
        lambda x: (x @ w["encoder.weight"].T + w["encoder.bias"]).relu(),
    )


def qwen_scope(root: Path) -> Published:
    place = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer14.sae.pt"
    w = random_weights(10, W_enc=(WIDTH, D_IN), W_dec=(D_IN, WIDTH), b_enc=(WIDTH,), b_dec=(D_IN,))
    write_checkpoint(root, place, w)
    return Published(
        "qwen_scope",
        "qwen-scope-3-1.7b-base-w32k-l50:layer14",
        place,
        "blocks.14.hook_resid_post",
        lambda x: topk(x @ w["W_enc"].T + w["b_enc"], 50),
    )


def goodfire(root: Path) -> Published:
    name = "Llama-3.1-8B-Instruct-SAE-l19"
    plain = linear_layers(13)
    w = {key.replace("coder.", "coder_linear."): value for key, value in plain.items()}
    write_checkpoint(root, f"Goodfire/{name}/{name}.pth", w)
    return Published(
        "goodfire",
        "goodfire-llama-3.1-8b-instruct:layer_19",
        f"Goodfire/{name}/{name}.pth",
        "blocks.19.hook_resid_post",
        lambda x: (x @ plain["encoder.weight"].T + plain["encoder.bias"]).relu(),
    )


def hook_z(root: Path) -> Published:
    name = (
        "gpt2-small_L6_Hcat_z_lr1.20e-03_l11.10e+00_ds24576_bs4096_dc1.00e-06_rsanthropic_"
        "rie25000_nr4_v9"
    )
    folder = "ckkissane/attn-saes-gpt2-small-all-layers"
    w = random_weights(14, **standard_shapes())
    write_checkpoint(root, f"{folder}/{name}.pt", w)
    stated = {"act_size": D_IN, "dict_size": WIDTH, "act_name": "blocks.6.attn.hook_z"}
    write_json(root / folder / f"{name}_cfg.json", stated)
    return Published(
        "connor_rob_hook_z",
        "gpt2-small-hook-z-kk:blocks.6.hook_z",
        f"{folder}/{name}.pt",
        "blocks.6.attn.hook_z",
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
    )
