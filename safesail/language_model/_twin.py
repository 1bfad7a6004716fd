"""A model of transformers, and a twin made of the same tensors for TransformerLens to wrap.

TransformerLens replaces parts of the model it is given, and needs eager attention to show what
happens inside it. The plain model stays as transformers made it, with faster attention.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


class TwinLoader:
    """Stands where TransformerLens takes a model class: it is handed the twin.

    Attributes:
        plain: the model as transformers runs it, but for faster kernels: sdpa attention where it
            has that, GELU in one step. None before `from_pretrained`.
    """

    def __init__(self, device: str) -> None:
        """Nothing is loaded yet; the model will run on that device."""
        self._device = device
        self.plain: Any = None

    def from_pretrained(self, source: str, **options: Any) -> Any:
        """Load a model once, keep it as `plain` and give its twin, whose attention is eager.

        Args:
            source: folder or hub name.
            options: as TransformerLens gives them to a model class of transformers.
        """
        from transformer_lens.model_bridge.sources.transformers import (
            determine_architecture_from_hf_config,
            get_hf_model_class_for_architecture,
        )

        asked = options["config"]
        configuration = copy.deepcopy(asked)
        # Only eager attention can give its weights out.
        configuration.output_attentions = False
        options |= {"config": configuration}
        model_class = get_hf_model_class_for_architecture(
            determine_architecture_from_hf_config(asked)
        )
        try:
            plain = model_class.from_pretrained(
                source, **(options | {"attn_implementation": "sdpa"})
            )
        except ValueError:  # attention that sdpa cannot compute, such as Gemma-2's
            plain = model_class.from_pretrained(
                source, **(options | {"attn_implementation": "eager"})
            )
        twin = self._twin_of(plain)
        if twin.config._attn_implementation != "eager":
            # A few older families (GPT-J, Falcon) choose their attention once and for all.
            plain = model_class.from_pretrained(
                source, **(options | {"attn_implementation": "eager"})
            )
            twin = self._twin_of(plain)
        twin.config.output_attentions = asked.output_attentions
        _fuse_activations(plain)
        self.plain = plain
        return twin

    def _twin_of(self, plain: Any) -> Any:
        plain.to(self._device).eval()
        tensors = [*plain.parameters(), *plain.buffers()]
        twin = copy.deepcopy(plain, {id(tensor): tensor for tensor in tensors})
        twin.set_attn_implementation("eager")
        return twin


def _fuse_activations(model: Any) -> None:
    """Compute GELU's tanh approximation in one step; transformers takes eight, each through memory.

    On processors they are a quarter of GPT-2's time.
    """
    from transformers.activations import FastGELUActivation, NewGELUActivation

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, FastGELUActivation | NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
