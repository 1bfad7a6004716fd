"""Which modules of a causal language model read and write its residual stream."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safesail.alignment._layouts import ATTENTION, BLOCKS, ROLES, Kind, Place, layout_of
from safesail.errors import AlignmentError

# Both signs in turn, so that the mean is 0; large, so that the norm's epsilon does not count.
_PROBE = 1024.0


@dataclass(frozen=True)
class Site:
    """A linear module that reads or writes the residual stream.

    Attributes:
        module: its path in the model.
        roles: what it is; several where one module computes queries, keys and values.
        block: number of its block.
        kind: whether it reads the stream or writes to it.
        norm: path of the norm between stream and module, before a reader or after a writer; None
            where there is none.
        d_in: numbers that it reads per token.
        d_out: numbers that it writes per token.
        transposed: whether its weight is [d_in, d_out], as GPT-2's are.
    """

    module: str
    roles: tuple[str, ...]
    block: int
    kind: Kind
    norm: str | None
    d_in: int
    d_out: int
    transposed: bool = False

    @property
    def stream(self) -> int:
        """State of the residual stream that it reads or writes.

        State l is what block l reads, and state l + 1 what it writes. Between attention and MLP
        the stream has no state of its own here: readers of a block count as readers of its input.
        """
        return self.block + (self.kind == "writer")

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.d_in if self.kind == "reader" else self.d_out


def find_sites(model: Any, modules: Sequence[str] = ATTENTION) -> tuple[Site, ...]:
    """The modules that an adapter can change, block by block.

    Args:
        model: a causal language model of transformers, without adapters.
        modules: roles, of `q`, `k`, `v`, `o`, `gate`, `up`, `down`.

    Raises:
        AlignmentError: a model of an unknown kind or already with adapters, an unknown role or
            one that the model does not have, or a module whose weights are quantised.
    """
    if hasattr(model, "peft_config"):
        raise AlignmentError(
            "the model already has an adapter: load it anew, or take `unload()` of it"
        )
    places = _chosen(layout_of(model.config.model_type), modules, model.config.model_type)
    named = dict(model.named_modules())
    blocks = next(path for path in BLOCKS if path in named)
    found = []
    for block in range(len(named[blocks])):
        for place in places:
            base = f"{blocks}.{block}"
            path = f"{base}.{place.path}"
            norm = None if place.norm is None else f"{base}.{place.norm}"
            found.append(
                Site(path, place.roles, block, place.kind, norm, *_shape(named[path], path))
            )
    return tuple(found)


def roles_of(model: Any) -> tuple[str, ...]:
    """The roles that a model's modules have.

    Raises:
        AlignmentError: a model of an unknown kind.
    """
    found = {role for place in layout_of(model.config.model_type) for role in place.roles}
    return tuple(role for role in ROLES if role in found)


def check_modules(kind: str, modules: Sequence[str]) -> None:
    """That models of a kind have modules to adapt, before one is loaded.

    Args:
        kind: transformers' `model_type`.
        modules: roles.

    Raises:
        AlignmentError: a model of an unknown kind; an unknown role, or one that it has not.
    """
    _chosen(layout_of(kind), modules, kind)


def _chosen(layout: Sequence[Place], modules: Sequence[str], kind: str) -> list[Place]:
    wanted = set(modules)
    unknown = sorted(wanted - set(ROLES))
    if unknown or not wanted:
        raise AlignmentError(
            f"no module is called {unknown[0]!r}: choose of {', '.join(ROLES)}"
            if unknown
            else f"no modules to adapt: choose of {', '.join(ROLES)}"
        )
    absent = sorted(wanted - {role for place in layout for role in place.roles})
    if absent:
        raise AlignmentError(f"models of type {kind!r} have no module {absent[0]!r}: leave it out")
    for place in layout:
        if 0 < len(wanted & set(place.roles)) < len(place.roles):
            raise AlignmentError(
                f"in models of type {kind!r} one module computes {', '.join(place.roles)}: "
                "choose all of them or none"
            )
    return [place for place in layout if wanted >= set(place.roles)]


def _shape(module: Any, path: str) -> tuple[int, int, bool]:
    """Numbers in and out of a plain linear module, and whether its weight is [in, out]."""
    from transformers.pytorch_utils import Conv1D

    # Quantised kinds are subclasses, whose weights the recipe's promises do not cover.
    if type(module) is torch.nn.Linear:
        return module.in_features, module.out_features, False
    if type(module) is Conv1D:
        return int(module.weight.shape[0]), int(module.weight.shape[1]), True
    raise AlignmentError(
        f"{path} is {type(module).__name__}, not a plain linear module: load the model without "
        "quantisation, for a base that must stay as it is and be merged exactly"
    )


def norm_gain(norm: Any) -> Tensor:
    """What a norm multiplies each coordinate by after it has scaled its input to length √d.

    Measured, for some norms multiply by their weight (Llama) and others by 1 + weight (Gemma).

    Args:
        norm: an RMSNorm or LayerNorm module over an even number of coordinates.

    Returns:
        float64 [d].
    """
    # In half precision the outputs would be rounded, by up to .4 %; the weights are exact.
    norm = copy.deepcopy(norm).float()
    signs = torch.ones_like(norm.weight)
    signs[::2] = -1
    with torch.no_grad():
        # What a bias adds is the same for both, and goes.
        gain = (norm(signs * _PROBE) - norm(-signs * _PROBE)) / 2 * signs
    return gain.double().cpu()
