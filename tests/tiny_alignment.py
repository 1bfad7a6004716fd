"""Tiny causal language models as transformers loads them, and subspaces to align them in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch

from safesail.alignment import LayerSubspace, Subspace, SubspaceFeature

MAKERS = {
    "llama": models.tiny_llama,
    "qwen2": models.tiny_qwen2,
    "qwen3": models.tiny_qwen3,
    "gemma2": models.tiny_gemma2,
    "gemma3": models.tiny_gemma3,
    "gpt2": models.tiny_gpt2,
    "gpt_neox": models.tiny_gpt_neox,
    **{kind: partial(models.tiny_of, kind) for kind in models.OTHER_KINDS},
}


def load(folder: Path) -> Any:
    """A saved model, float32, ready to infer."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def subspace(
    *streams: int, rank: int = 4, d_model: int = models.D_MODEL, writers_only: bool = False
) -> Subspace:
    """Random orthonormal bases at some streams, with features that have explanations."""
    generator = np.random.default_rng(sum(streams) + rank)
    layers = []
    for stream in streams:
        basis = np.linalg.qr(generator.normal(size=(d_model, rank)))[0]
        features = tuple(
            SubspaceFeature(number, 0.5, 1.0, f"explanation {stream}/{number}", ("fraud",))
            for number in range(rank)
        )
        layers.append(
            LayerSubspace(
                stream,
                f"blocks.{max(0, stream - 1)}.hook_resid_{'post' if stream else 'pre'}",
                "sae",
                basis.astype(np.float32),
                features,
                np.ones(rank, np.float32),
                writers_only,
            )
        )
    return Subspace("tiny", tuple(layers), "abs", "weighted", "sae")


def some_tokens(rows: int = 3, length: int = 12, seed: int = 0) -> torch.Tensor:
    """int64 [rows, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, models.VOCABULARY, (rows, length), generator=generator)


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """Logits of some tokens."""
    return model(input_ids=some_tokens() if tokens is None else tokens).logits


def step(model: Any, learning_rate: float = 0.1) -> None:
    """One step of plain gradient descent on some tokens."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=learning_rate)
    tokens = some_tokens()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def delta(model: Any, module: str) -> torch.Tensor:
    """What an adapter adds to a weight, float64 [d_out, d_in]."""
    layer = model.base_model.model.get_submodule(module)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return (layer.scaling["default"] * b.double() @ a.double()).detach()


def left_outside(columns: torch.Tensor, basis: np.ndarray) -> float:
    """Share of columns' length that lies outside the span of an orthonormal basis."""
    u = torch.from_numpy(basis).double()
    return float((columns - u @ (u.T @ columns)).norm() / columns.norm())
