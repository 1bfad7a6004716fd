"""Where the blocks of each kind of model read and write the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from safesail.errors import AlignmentError

Kind = Literal["reader", "writer"]
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
ATTENTION = ROLES[:4]
"""Queries, keys, values and output of attention: the modules of the published parameter count."""


class Place(NamedTuple):
    """A module of a block.

    Attributes:
        path: in the block.
        roles: what it is; several where one module computes several.
        kind: whether it reads the stream or writes to it.
        norm: path in the block of the norm between stream and module; None where there is none.
    """

    path: str
    roles: tuple[str, ...]
    kind: Kind
    norm: str | None


def _attention(before: str | None, after: str | None, path: str = "self_attn") -> list[Place]:
    return [
        *(Place(f"{path}.{role}_proj", (role,), "reader", before) for role in "qkv"),
        Place(f"{path}.o_proj", ("o",), "writer", after),
    ]


def _gated(before: str | None, after: str | None) -> list[Place]:
    return [
        *(Place(f"mlp.{role}_proj", (role,), "reader", before) for role in ("gate", "up")),
        Place("mlp.down_proj", ("down",), "writer", after),
    ]


def _plain(up: str, down: str, before: str) -> list[Place]:
    """An MLP without a gate."""
    return [Place(up, ("up",), "reader", before), Place(down, ("down",), "writer", None)]


_FIRST, _SECOND = "input_layernorm", "post_attention_layernorm"
_LLAMA = [*_attention(_FIRST, None), *_gated(_SECOND, None)]
# Norms before and after.
_GEMMA = [
    *_attention(_FIRST, _SECOND),
    *_gated("pre_feedforward_layernorm", "post_feedforward_layernorm"),
]
# Norms after alone.
_OLMO2 = [*_attention(None, _SECOND), *_gated(None, "post_feedforward_layernorm")]
# Experts share one module, which an adapter of this recipe does not reach.
_EXPERTS = _attention(_FIRST, None)
_PHI3 = [
    Place("self_attn.qkv_proj", ("q", "k", "v"), "reader", _FIRST),
    Place("self_attn.o_proj", ("o",), "writer", None),
    Place("mlp.gate_up_proj", ("gate", "up"), "reader", _SECOND),
    Place("mlp.down_proj", ("down",), "writer", None),
]
_STARCODER2 = [*_attention(_FIRST, None), *_plain("mlp.c_fc", "mlp.c_proj", _SECOND)]
_GPT2 = [
    Place("attn.c_attn", ("q", "k", "v"), "reader", "ln_1"),
    Place("attn.c_proj", ("o",), "writer", None),
    *_plain("mlp.c_fc", "mlp.c_proj", "ln_2"),
]
_GPT_NEOX = [
    Place("attention.query_key_value", ("q", "k", "v"), "reader", _FIRST),
    Place("attention.dense", ("o",), "writer", None),
    *_plain("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", _SECOND),
]
_LAYOUTS = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "smollm3": _LLAMA,
    "granite": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gemma3_text": _GEMMA,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "phi3": _PHI3,
    "starcoder2": _STARCODER2,
    "gpt2": _GPT2,
    "gpt_neox": _GPT_NEOX,
}
# The last is Gemma-3 with its image tower, which is left alone.
BLOCKS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.language_model.layers")
"""Paths of the list of blocks."""


def layout_of(kind: str) -> Sequence[Place]:
    """The modules of a block.

    Args:
        kind: transformers' `model_type`.

    Raises:
        AlignmentError: a kind that is not known.
    """
    if kind not in _LAYOUTS:
        raise AlignmentError(
            f"adapters are not known for models of type {kind!r}: known are {', '.join(_LAYOUTS)}"
        )
    return _LAYOUTS[kind]


def check_served(
    hook_point: str, stream: int, modules: Sequence[str], *, blocks: int, writers_only: bool
) -> None:
    """That a basis at a state of the residual stream serves a module that is to be adapted.

    Args:
        hook_point: where the basis is found.
        stream: the state: k is what block k reads, and what block k - 1 wrote.
        modules: roles.
        blocks: of the model.
        writers_only: the basis says nothing of modules that read.

    Raises:
        AlignmentError: it serves none.
    """
    writers = stream > 0 and bool({"o", "down"} & set(modules))
    readers = stream < blocks and not writers_only and bool(set(modules) - {"o", "down"})
    if not (writers or readers):
        raise AlignmentError(
            f"no module chosen reads or writes {hook_point}: adapt others (--modules), or use an "
            "SAE at the residual stream of a block in between"
        )
