"""What the makers of all layouts share: random weights, the usual formulas, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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


def random_weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Random random_weights: weights so scaled that about a fifth of the features fire."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        made[name] = noise / D_IN**0.5 if len(shape) == 2 else noise * 0.3
    return made


def standard_shapes() -> dict[str, tuple[int, ...]]:
    return {"W_enc": (D_IN, WIDTH), "W_dec": (WIDTH, D_IN), "b_enc": (WIDTH,), "b_dec": (D_IN,)}


def linear_layers(seed: int) -> dict[str, Tensor]:
    return random_weights(
        seed,
        **{
            "encoder.weight": (WIDTH, D_IN),
            "encoder.bias": (WIDTH,),
            "decoder.weight": (D_IN, WIDTH),
            "decoder.bias": (D_IN,),
        },
    )


def jumprelu(w: Tensor, b: Tensor, threshold: Tensor) -> Encode:
    def encode(x: Tensor) -> Tensor:
        pre = x @ w + b
        return torch.where(pre > threshold, pre.clamp(min=0), 0.0)

    return encode


def topk(pre: Tensor, k: int) -> Tensor:
    kept = pre >= pre.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return torch.where(kept, pre, 0.0).clamp(min=0)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_checkpoint(root: Path, place: str, content: dict[str, Tensor]) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, root / place)
