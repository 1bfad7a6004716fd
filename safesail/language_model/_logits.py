"""Direct logit attribution: what a direction of the residual stream does to the next token."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

_DIRECTIONS_AT_ONCE = 32


@torch.inference_mode()
def ranked_tokens(
    bridge: Any, directions: Tensor, known: int, count: int
) -> list[tuple[list[int], list[int]]]:
    """Ids of the tokens that directions make likeliest and least likely, strongest first.

    Args:
        bridge: a TransformerBridge.
        directions: [k, d_model], on its device.
        known: ids from here on are padding of the unembedding.
        count: tokens per side.
    """
    unembedding = bridge.W_U[:, :known].float()
    answer = []
    for part in _through_final_norm(bridge, directions.float()).split(_DIRECTIONS_AT_ONCE):
        logits = part @ unembedding
        top = logits.topk(min(count, known), dim=-1).indices.tolist()
        bottom = logits.topk(min(count, known), dim=-1, largest=False).indices.tolist()
        answer += list(zip(top, bottom, strict=True))
    return answer


def token_text(token_id: int, tokenizer: Any) -> str:
    """A token as it stands in a text, with the space before it.

    Args:
        token_id: known to the tokenizer.
        tokenizer: of transformers.
    """
    text = str(tokenizer.decode([token_id]))
    piece = tokenizer.convert_ids_to_tokens(token_id)
    # A sentencepiece decoder drops the space before the first word of a text.
    return f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text


def _through_final_norm(bridge: Any, directions: Tensor) -> Tensor:
    """Apply the final norm's centring and weight, read off its response to a probe.

    A vector of alternating signs has mean 0 and scale 1, so the norm answers with its own weight
    and bias, whatever its formula (Gemma's weight is 1 plus the stored one). It answers in float32
    even where the model runs in half precision.
    """
    if not hasattr(bridge, "ln_final"):
        return directions
    norm = copy.deepcopy(bridge.ln_final.original_component).float()
    probe = torch.ones(1, 1, directions.shape[-1], device=directions.device)
    probe[..., 1::2] = -1
    weight = ((norm(probe) - norm(-probe)) / 2 * probe).flatten()
    if torch.allclose(norm(probe + 1), norm(probe), atol=1e-3):
        directions = directions - directions.mean(dim=-1, keepdim=True)
    return directions * weight
