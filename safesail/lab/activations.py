"""Hidden states of the lab's language model at content tokens, with their place in the text.

The model is read through Hugging Face modules: `blocks.L.hook_resid_post` is the output of decoder
layer L, `blocks.L.hook_mlp_out` the output of its MLP, as TransformerLens defines them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from safesail.lab.language_model import BOS, PAD

SINK_FACTOR = 8.0
"""A token whose norm exceeds this many medians is an attention sink, not a content token."""


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Tokens of many documents in order, BOS left out: [tokens] arrays.

    `document` is the index of a token's document, `last` the index of its last character.
    """

    rows: list[list[int]]
    document: NDArray[np.int64]
    last: NDArray[np.int64]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int = 128
) -> TokenTable:
    """Tokenizes each text with BOS first, cut at `context` tokens."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        truncation=True,
        max_length=context - 1,
    )
    offsets = encoded["offset_mapping"]
    return TokenTable(
        rows=[[BOS, *ids] for ids in encoded["input_ids"]],
        document=np.repeat(np.arange(len(texts)), [len(spans) for spans in offsets]),
        last=np.array([end - 1 for spans in offsets for _, end in spans], dtype=np.int64),
    )


def _module(model: LlamaForCausalLM, hook_point: str) -> nn.Module:
    match = re.fullmatch(r"blocks\.(\d+)\.hook_(resid_post|mlp_out)", hook_point)
    if match is None:
        raise ValueError(f"hook point {hook_point!r} is not one that the lab reads")
    layer = model.model.layers[int(match[1])]
    return layer if match[2] == "resid_post" else layer.mlp


@torch.inference_mode()
def read_hook_points(
    model: LlamaForCausalLM, table: TokenTable, hook_points: Sequence[str], size: int = 64
) -> dict[str, Tensor]:
    """Activations [tokens, d_model] at each hook point, float32, tokens as in `table`."""
    caught: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            caught[name] = output if isinstance(output, Tensor) else output[0]

        return _module(model, name).register_forward_hook(hook)

    handles = [keep(name) for name in hook_points]
    lengths = np.array([len(row) for row in table.rows])
    starts = np.concatenate([[0], np.cumsum(lengths - 1)])
    width = model.config.hidden_size
    read = {name: torch.empty(int(starts[-1]), width) for name in hook_points}
    order = np.argsort(lengths, kind="stable")
    try:
        for first in range(0, len(order), size):
            indices = order[first : first + size]
            batch = torch.full((len(indices), int(lengths[indices].max())), PAD)
            for row, index in zip(batch, indices, strict=True):
                row[: lengths[index]] = torch.tensor(table.rows[index])
            model.model(input_ids=batch)
            for name in hook_points:
                for row, index in zip(caught[name], indices, strict=True):
                    read[name][starts[index] : starts[index + 1]] = row[1 : lengths[index]]
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return read


def content_mask(activations: Tensor) -> Tensor:
    """Boolean [tokens]: which of [tokens, d_model] are no attention sinks."""
    norms = activations.norm(dim=1)
    return norms <= SINK_FACTOR * norms.median()
