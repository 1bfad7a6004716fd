"""The factors of a saved LoRA adapter, whoever made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from safesail.alignment._plan import import_peft
from safesail.errors import AlignmentError

_PREFIX = "base_model.model."


class Factors(NamedTuple):
    """What an adapter adds to a weight: scaling · B A.

    Attributes:
        a: [r, d_in].
        b: [d_out, r].
        scaling: a number.
    """

    a: Tensor
    b: Tensor
    scaling: float


def read_factors(folder: Path) -> dict[str, Factors]:
    """Factors by the module's path in the base model.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors, as PEFT saves them.

    Raises:
        AlignmentError: no such folder, an adapter of another kind than plain LoRA, or damaged.
    """
    peft = import_peft()
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise AlignmentError(
            f"{folder} is no adapter of PEFT: it lacks adapter_config.json or {weights.name}"
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        tensors = load_file(weights)
    except Exception as error:  # PEFT and safetensors raise classes of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise AlignmentError(f"cannot read adapter {folder}: {reason}") from error
    if str(config.peft_type).rpartition(".")[2] != "LORA" or config.use_dora:
        kind = "DoRA" if getattr(config, "use_dora", False) else config.peft_type
        raise AlignmentError(f"{folder} is no plain LoRA adapter ({kind}): it is not a product B A")
    found = {}
    for name in sorted(tensors):
        module = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        if not name.endswith(".lora_A.weight"):
            continue
        a, b = tensors[name], tensors.get(name.replace("lora_A", "lora_B"))
        if b is None or b.shape[1] != a.shape[0]:
            raise AlignmentError(f"adapter {folder} is damaged: no B beside A of {module}")
        found[module] = Factors(a, b, _scaling(config, module, a.shape[0], get_pattern_key))
    if not found:
        raise AlignmentError(f"adapter {folder} changes no linear module")
    return found


def _scaling(config: Any, module: str, rank: int, get_pattern_key: Any) -> float:
    key = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha = config.alpha_pattern.get(key, config.lora_alpha)
    return float(alpha / (rank**0.5 if config.use_rslora else rank))
