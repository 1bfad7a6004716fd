"""Where a layout's files and SAELens' reading of them do not agree: put right, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from torch import Tensor

from safesail.errors import CandidateError

# Classes of dictionary_learning that SAELens encodes as that library does, up to decoder norms.
_DICTIONARIES = (
    "AutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "MatryoshkaBatchTopKSAE",
)
_WIDTHS = ("b_enc", "b_gate", "b_mag", "r_mag", "threshold")


def check_configuration(layout: str, read: Callable[[str], str], source: str) -> dict[str, Any]:
    """Refuse what SAELens' loader would misread; what it needs to read the rest rightly.

    Args:
        layout: SAELens' name of it.
        read: text of a file of the SAE's folder.
        source: what the user calls the SAE.

    Returns:
        Overrides of SAELens' configuration.

    Raises:
        CandidateError: SAELens would encode it otherwise than its makers do.
    """
    if layout == "sparsify":
        stated = json.loads(read("cfg.json"))
        for key, plain in (("transcode", False), ("skip_connection", False), ("signed", False)):
            if stated.get(key, plain) != plain:
                raise CandidateError(f"SAE {source}: sparsify's `{key}` is not read by SAELens")
        if stated.get("activation", "topk") != "topk":
            raise CandidateError(
                f"SAE {source}: sparsify's activation {stated['activation']!r} is not read by "
                "SAELens, topk is"
            )
        # sparsify subtracts the bias from every input; SAELens' loader leaves it on some.
        return {"apply_b_dec_to_input": True}
    if layout == "dictionary_learning_1":
        trainer = json.loads(read("config.json"))["trainer"]
        kind, site = trainer.get("dict_class"), trainer.get("submodule_name") or ""
        if kind not in _DICTIONARIES:
            raise CandidateError(
                f"SAE {source} is a {kind} of dictionary_learning; SAELens reads "
                f"{', '.join(_DICTIONARIES)}"
            )
        if not site.startswith(("resid_post", f"resid_{trainer['layer']}")) and site:
            raise CandidateError(
                f"SAE {source} reads {site!r}; of dictionary_learning's SAEs SAELens reads those "
                "on the residual stream after a block (resid_post)"
            )
    return {}


def check_shapes(configuration: dict[str, Any], weights: dict[str, Tensor], source: str) -> None:
    """Compare tensors with the sizes that the configuration states.

    Raises:
        CandidateError: a tensor has another shape.
    """
    d_in, width = configuration.get("d_in"), configuration.get("d_sae")
    d_out = configuration.get("d_out", d_in)
    expected: dict[str, tuple[Any, ...]] = {
        "W_enc": (d_in, width),
        "W_dec": (width, d_out),
        "W_skip": (d_out, d_in),
        "b_dec": (d_out,),
        **dict.fromkeys(_WIDTHS, (width,)),
    }
    for name, shape in expected.items():
        if name in weights and tuple(weights[name].shape) != shape:
            found = " x ".join(map(str, weights[name].shape))
            sizes = f"d_in {d_in}, d_sae {width}" + (f", d_out {d_out}" if d_out != d_in else "")
            raise CandidateError(
                f"SAE {source}: {name} is {found}, its configuration says {sizes}: "
                "configuration and weights do not belong together"
            )
