"""The dictionaries that the library dictionary_learning saves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from published._common import (
    D_IN,
    WIDTH,
    Encode,
    Published,
    jumprelu,
    linear_layers,
    random_weights,
    standard_shapes,
    topk,
    write_json,
)

DICTIONARIES = {
    "AutoEncoder": ("standard_ctx128_0712", 0),
    "GatedAutoEncoder": ("gated_ctx128_0730", 0),
    "AutoEncoderTopK": ("topk_ctx128_0730", 0),
    "JumpReluAutoEncoder": ("topk_ctx128_0730", 1),
    "BatchTopKSAE": ("topk_ctx128_0730", 2),
}


def dictionary_learning(root: Path, kind: str) -> Published:
    sweep, trainer = DICTIONARIES[kind]
    folder = f"pythia70m_sweep_{sweep}/resid_post_layer_4/trainer_{trainer}"
    place = f"canrager/lm_sae/{folder}"
    k = 5
    write_json(root / place / "config.json", {
        "trainer": {
            "dict_class": kind, "layer": 4, "activation_dim": D_IN, "dict_size": WIDTH, "k": k,
            "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_4",
        },
        "buffer": {"ctx_len": 128},
    })  # fmt: skip
    w = linear_layers(20 + len(kind))
    enc, b = w["encoder.weight"].T, w["encoder.bias"]
    expected: Encode
    if kind == "JumpReluAutoEncoder":
        w = random_weights(30, **standard_shapes()) | {"threshold": torch.rand(WIDTH)}
        expected = jumprelu(w["W_enc"], w["b_enc"], w["threshold"])
    elif kind == "GatedAutoEncoder":
        vectors = dict.fromkeys(("r_mag", "gate_bias", "mag_bias"), (WIDTH,))
        w = {n: w[n] for n in ("encoder.weight", "decoder.weight")}
        w |= random_weights(31, **vectors, decoder_bias=(D_IN,))

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
            expected = lambda x: topk((x - offset) @ enc + b, k)  # noqa: E731
        else:
            w |= {"k": torch.tensor(k), "threshold": torch.tensor(0.7)}
            inner = jumprelu(enc, b, w["threshold"])
            expected = lambda x: inner(x - offset)  # noqa: E731
    torch.save(w, root / place / "ae.pt")
    return Published(
        "dictionary_learning_1",
        f"sae_bench_pythia70m_sweep_{sweep}:blocks.4.hook_resid_post__trainer_{trainer}",
        place,
        "blocks.4.hook_resid_post",
        expected,
    )
