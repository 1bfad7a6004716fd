"""Keep the basis of an adapter as it is while the rest of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safesail.errors import AlignmentError

Factor = str
"""`lora_A` or `lora_B`."""


def freeze(model: Any, factors: Mapping[str, Factor], adapter: str = "default") -> None:
    """Freeze one factor of each module named.

    `requires_grad_(False)` alone is lost when PEFT activates an adapter or makes it trainable. So
    each layer is told that the factor is not for training, which PEFT (0.21 on) asks whenever it
    turns gradients on. A saved adapter does not say it: `load_adapter` freezes again by the
    provenance file.

    Args:
        model: a PeftModel.
        factors: module's path in the base -> its frozen factor.
        adapter: name of the adapter.

    Raises:
        AlignmentError: PEFT is too old.
    """
    layers = dict(model.base_model.model.named_modules())
    for path, factor in factors.items():
        layer = layers[path]
        if not hasattr(layer, "frozen_peft_weight_names"):
            raise AlignmentError("a frozen basis needs PEFT 0.21: run `pip install --upgrade peft`")
        # A dictionary of the class until it is set.
        layer.frozen_peft_weight_names = {**layer.frozen_peft_weight_names, adapter: (factor,)}
        getattr(layer, factor)[adapter].requires_grad_(False)
