"""The base model as transformers has it, to be adapted and to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safesail.alignment._quiet import quiet
from safesail.errors import ModelError

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel


def load_base(model: LanguageModel) -> Any:
    """The causal language model of transformers behind a loaded one, on its device, to infer.

    It is loaded anew: the other one is cut to its blocks and their hook points.

    Args:
        model: whose files, device and precision are taken.

    Raises:
        ModelError: transformers cannot load it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            base = AutoModelForCausalLM.from_pretrained(
                model.folder or model.name, dtype=getattr(torch, model.dtype)
            )
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"cannot load {model.name!r} to be adapted: {reason}") from error
    return base.to(model.device).eval()
