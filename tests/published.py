"""Small SAEs in the layouts that the field publishes, with what their makers' formulas give.

Each is written below `root/<owner>/<repository>/`, as the hub serves it, under a name that
SAELens' directory knows. The expected features are computed from the file's own tensors by the
formula of whoever published the layout, without SAELens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

D_IN = 32
WIDTH = 96
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Published:
    """An SAE in its makers' layout.

    Attributes:
        layout: SAELens' name of its loader.
        candidate: `release:sae_id` of SAELens' directory; None where no release is so published.
        place: its folder or file below the root.
        hook_point: that it reads.
        expected: features of inputs [n, D_IN], by its makers' formula.
        output_hook_point: that it rebuilds, if another.
        rebuilt: what its makers' formula rebuilds from inputs; None where it is plain.
    """

    layout: str
    candidate: str | None
    place: str
    hook_point: str
    expected: Encode
    output_hook_point: str | None = None
    rebuilt: Encode | None = None


def inputs(rows: int = 40) -> Tensor:
    """The same activations for all; the process that asks the hub makes them itself."""
    return torch.sin(torch.arange(rows * D_IN, dtype=torch.float32).view(rows, D_IN) * 1.7) * 2


def publish_all(root: Path) -> list[Published]:
    """Write one of each layout that is read, and of each kind within it."""
    return [
        _sae_lens(root),
        _gemma_2(root),
        _gemma_2_transcoder(root),
        _gemma_3(root),
        _gemma_3_transcoder(root),
        _llama_scope(root),
        _llama_scope_r1(root),
        *(_dictionary_learning(root, kind) for kind in _DICTIONARIES),
        _deepseek(root),
        _qwen_scope(root),
        _sparsify(root),
        _mwhanna(root),
        _goodfire(root),
        _hook_z(root),
    ]


def tensors(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Random tensors: weights so scaled that about a fifth of the features fire."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        made[name] = noise / D_IN**0.5 if len(shape) == 2 else noise * 0.3
    return made


def _standard_shapes() -> dict[str, tuple[int, ...]]:
    return {"W_enc": (D_IN, WIDTH), "W_dec": (WIDTH, D_IN), "b_enc": (WIDTH,), "b_dec": (D_IN,)}


def _jumprelu(w: Tensor, b: Tensor, threshold: Tensor) -> Encode:
    def encode(x: Tensor) -> Tensor:
        pre = x @ w + b
        return torch.where(pre > threshold, pre.clamp(min=0), 0.0)

    return encode


def _topk(pre: Tensor, k: int) -> Tensor:
    kept = pre >= pre.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return torch.where(kept, pre, 0.0).clamp(min=0)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _sae_lens(root: Path) -> Published:
    """A flat configuration, as SAELens wrote it before version 6."""
    place = "jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre"
    w = tensors(1, **_standard_shapes())
    _json(root / place / "cfg.json", {
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


def _npz(file: Path, seed: int) -> dict[str, Tensor]:
    w = tensors(seed, **_standard_shapes(), threshold=(WIDTH,))
    w["threshold"] = w["threshold"].abs() + 0.4
    file.parent.mkdir(parents=True)
    np.savez(file, **{name: value.numpy() for name, value in w.items()})
    return w


def _gemma_2(root: Path) -> Published:
    place = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
    w = _npz(root / place / "params.npz", 2)
    return Published(
        "gemma_2",
        "gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82",
        place,
        "blocks.12.hook_resid_post",
        _jumprelu(w["W_enc"], w["b_enc"], w["threshold"]),
    )


def _gemma_2_transcoder(root: Path) -> Published:
    place = "google/gemma-scope-2b-pt-transcoders/layer_13/width_16k/average_l0_8"
    w = _npz(root / place / "params.npz", 3)
    encode = _jumprelu(w["W_enc"], w["b_enc"], w["threshold"])
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
    shapes = {name.lower(): shape for name, shape in _standard_shapes().items()}
    w = tensors(seed, **shapes, threshold=(WIDTH,), **more)
    w["threshold"] = w["threshold"].abs() + 0.4
    file.parent.mkdir(parents=True)
    save_file(w, file)
    return w


def _gemma_3(root: Path) -> Published:
    place = "google/gemma-scope-2-270m-pt/resid_post/layer_5_width_16k_l0_big"
    w = _gemma_3_weights(root / place / "params.safetensors", 4)
    _json(root / place / "config.json", {
        "architecture": "jump_relu", "model_name": "gemma-v3-270m-pt",
        "hf_hook_point_in": "model.layers.5.output",
    })  # fmt: skip
    return Published(
        "gemma_3",
        "gemma-scope-2-270m-pt-res:layer_5_width_16k_l0_big",
        place,
        "blocks.5.hook_resid_post",
        _jumprelu(w["w_enc"], w["b_enc"], w["threshold"]),
    )


def _gemma_3_transcoder(root: Path) -> Published:
    """With an affine connection; without config.json, as some of them are."""
    name = "transcoder/layer_9_width_16k_l0_small_affine"
    place = f"google/gemma-scope-2-270m-pt/{name}"
    more = {"affine_skip_connection": (D_IN, D_IN)}
    w = _gemma_3_weights(root / place / "params.safetensors", 5, **more)
    encode = _jumprelu(w["w_enc"], w["b_enc"], w["threshold"])
    return Published(
        "gemma_3",
        f"gemma-scope-2-270m-pt-transcoders:{name}",
        place,
        "blocks.9.mlp.hook_in",
        encode,
        "blocks.9.hook_mlp_out",
        lambda x: encode(x) @ w["w_dec"] + w["b_dec"] + x @ w["affine_skip_connection"],
    )


def _linear_layers(seed: int) -> dict[str, Tensor]:
    return tensors(
        seed,
        **{
            "encoder.weight": (WIDTH, D_IN),
            "encoder.bias": (WIDTH,),
            "decoder.weight": (D_IN, WIDTH),
            "decoder.bias": (D_IN,),
        },
    )


def _llama_scope(root: Path) -> Published:
    """Inputs are scaled to a mean norm of sqrt(d); the threshold is scaled as SAELens does."""
    scale = 5.278350515463917  # of this SAE, in SAELens' directory
    place = "fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L16R-8x"
    w = _linear_layers(6)
    _json(root / place / "hyperparams.json", {
        "d_model": D_IN, "d_sae": WIDTH, "jump_relu_threshold": 0.2,
        "hook_point_in": "blocks.16.hook_resid_post",
        "dataset_average_activation_norm": {"in": D_IN**0.5 / scale},
    })  # fmt: skip
    (root / place / "checkpoints").mkdir()
    save_file(w, root / place / "checkpoints" / "final.safetensors")
    encode = _jumprelu(w["encoder.weight"].T, w["encoder.bias"], torch.tensor(0.2 * scale))
    return Published(
        "llama_scope",
        "llama_scope_lxr_8x:l16r_8x",
        place,
        "blocks.16.hook_resid_post",
        lambda x: encode(x * scale),
    )


def _llama_scope_r1(root: Path) -> Published:
    scale = 4.79639347416429  # of this SAE, in SAELens' directory
    place = "fnlp/Llama-Scope-R1-Distill/400M-Slimpajama-400M-OpenR1-Math-220k/L16R"
    w = _linear_layers(7) | tensors(8, log_jumprelu_threshold=(WIDTH,))
    _json(root / place / "config.json", {
        "d_model": D_IN, "expansion_factor": WIDTH // D_IN,
        "hook_point_in": "blocks.16.hook_resid_post",
    })  # fmt: skip
    save_file(w, root / place / "sae_weights.safetensors")
    threshold = w["log_jumprelu_threshold"].exp()
    encode = _jumprelu(w["encoder.weight"].T, w["encoder.bias"], threshold)
    return Published(
        "llama_scope_r1_distill",
        "llama_scope_r1_distill:l16r_400m_slimpajama_400m_openr1_math",
        place,
        "blocks.16.hook_resid_post",
        lambda x: encode(x * scale),
    )


_DICTIONARIES = {
    "AutoEncoder": ("standard_ctx128_0712", 0),
    "GatedAutoEncoder": ("gated_ctx128_0730", 0),
    "AutoEncoderTopK": ("topk_ctx128_0730", 0),
    "JumpReluAutoEncoder": ("topk_ctx128_0730", 1),
    "BatchTopKSAE": ("topk_ctx128_0730", 2),
}


def _dictionary_learning(root: Path, kind: str) -> Published:
    sweep, trainer = _DICTIONARIES[kind]
    folder = f"pythia70m_sweep_{sweep}/resid_post_layer_4/trainer_{trainer}"
    place = f"canrager/lm_sae/{folder}"
    k = 5
    _json(root / place / "config.json", {
        "trainer": {
            "dict_class": kind, "layer": 4, "activation_dim": D_IN, "dict_size": WIDTH, "k": k,
            "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_4",
        },
        "buffer": {"ctx_len": 128},
    })  # fmt: skip
    w = _linear_layers(20 + len(kind))
    enc, b = w["encoder.weight"].T, w["encoder.bias"]
    expected: Encode
    if kind == "JumpReluAutoEncoder":
        w = tensors(30, **_standard_shapes()) | {"threshold": torch.rand(WIDTH)}
        expected = _jumprelu(w["W_enc"], w["b_enc"], w["threshold"])
    elif kind == "GatedAutoEncoder":
        vectors = dict.fromkeys(("r_mag", "gate_bias", "mag_bias"), (WIDTH,))
        w = {n: w[n] for n in ("encoder.weight", "decoder.weight")}
        w |= tensors(31, **vectors, decoder_bias=(D_IN,))

        def expected(x: Tensor) -> Tensor:
            drive = (x - w["decoder_bias"]) @ enc
            magnitude = (w["r_mag"].exp() * drive + w["mag_bias"]).relu()
            return torch.where(drive + w["gate_bias"] > 0, magnitude, 0.0)

    else:
        w["bias" if kind == "AutoEncoder" else "b_dec"] = w.pop("decoder.bias")
        offset = w.get("bias", w.get("b_dec"))
        if kind == "AutoEncoder":
            expected = lambda x: ((x - offset) @ enc + b).relu()  # noqa: E731
        elif kind == "AutoEncoderTopK":
            w |= {"k": torch.tensor(k), "threshold": torch.tensor(-1.0)}
            expected = lambda x: _topk((x - offset) @ enc + b, k)  # noqa: E731
        else:
            w |= {"k": torch.tensor(k), "threshold": torch.tensor(0.7)}
            inner = _jumprelu(enc, b, w["threshold"])
            expected = lambda x: inner(x - offset)  # noqa: E731
    torch.save(w, root / place / "ae.pt")
    return Published(
        "dictionary_learning_1",
        f"sae_bench_pythia70m_sweep_{sweep}:blocks.4.hook_resid_post__trainer_{trainer}",
        place,
        "blocks.4.hook_resid_post",
        expected,
    )


def _file(root: Path, place: str, content: dict[str, Tensor]) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, root / place)


def _deepseek(root: Path) -> Published:
    name = "DeepSeek-R1-Distill-Llama-8B-SAE-l19"
    w = _linear_layers(9)
    _file(root, f"qresearch/{name}/{name}.pt", w)
    return Published(
        "deepseek_r1",
        "deepseek-r1-distill-llama-8b-qresearch:blocks.19.hook_resid_post",
        f"qresearch/{name}/{name}.pt",
        "blocks.19.hook_resid_post",
        lambda x: (x @ w["encoder.weight"].T + w["encoder.bias"]).relu(),
    )


def _qwen_scope(root: Path) -> Published:
    place = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer14.sae.pt"
    w = tensors(10, W_enc=(WIDTH, D_IN), W_dec=(D_IN, WIDTH), b_enc=(WIDTH,), b_dec=(D_IN,))
    _file(root, place, w)
    return Published(
        "qwen_scope",
        "qwen-scope-3-1.7b-base-w32k-l50:layer14",
        place,
        "blocks.14.hook_resid_post",
        lambda x: _topk(x @ w["W_enc"].T + w["b_enc"], 50),
    )


def _sparsify(root: Path) -> Published:
    """sparsify subtracts b_dec whatever normalize_decoder says, takes the ReLU, then the k largest;
    num_latents 0 stands for the expansion factor."""
    place = "EleutherAI/sae-llama-3-8b-32x/layers.10"
    shapes = {"encoder.weight": (WIDTH, D_IN), "encoder.bias": (WIDTH,), "b_dec": (D_IN,)}
    w = tensors(11, **shapes, W_dec=(WIDTH, D_IN))
    _json(root / place / "cfg.json", {
        "expansion_factor": WIDTH // D_IN, "normalize_decoder": True, "num_latents": 0, "k": 7,
        "multi_topk": False, "skip_connection": False, "d_in": D_IN,
    })  # fmt: skip
    save_file(w, root / place / "sae.safetensors")
    return Published(
        "sparsify",
        None,
        place,
        "blocks.10.hook_resid_post",
        lambda x: _topk((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 7),
        rebuilt=lambda x: (
            _topk((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 7) @ w["W_dec"]
            + w["b_dec"]
        ),
    )


def _mwhanna(root: Path) -> Published:
    repository = "mwhanna/qwen3-4b-transcoders"
    w = tensors(12, W_enc=(WIDTH, D_IN), W_dec=(WIDTH, D_IN), b_enc=(WIDTH,), b_dec=(D_IN,))
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


def _goodfire(root: Path) -> Published:
    name = "Llama-3.1-8B-Instruct-SAE-l19"
    plain = _linear_layers(13)
    w = {key.replace("coder.", "coder_linear."): value for key, value in plain.items()}
    _file(root, f"Goodfire/{name}/{name}.pth", w)
    return Published(
        "goodfire",
        "goodfire-llama-3.1-8b-instruct:layer_19",
        f"Goodfire/{name}/{name}.pth",
        "blocks.19.hook_resid_post",
        lambda x: (x @ plain["encoder.weight"].T + plain["encoder.bias"]).relu(),
    )


def _hook_z(root: Path) -> Published:
    name = (
        "gpt2-small_L6_Hcat_z_lr1.20e-03_l11.10e+00_ds24576_bs4096_dc1.00e-06_rsanthropic_"
        "rie25000_nr4_v9"
    )
    folder = "ckkissane/attn-saes-gpt2-small-all-layers"
    w = tensors(14, **_standard_shapes())
    _file(root, f"{folder}/{name}.pt", w)
    stated = {"act_size": D_IN, "dict_size": WIDTH, "act_name": "blocks.6.attn.hook_z"}
    _json(root / folder / f"{name}_cfg.json", stated)
    return Published(
        "connor_rob_hook_z",
        "gpt2-small-hook-z-kk:blocks.6.hook_z",
        f"{folder}/{name}.pt",
        "blocks.6.attn.hook_z",
        lambda x: ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu(),
    )
