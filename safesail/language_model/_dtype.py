"""In which precision a model runs."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from safesail.errors import ModelError

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_dtype(dtype: str, device: str, configuration: Path) -> torch.dtype:
    """Precision by name.

    `auto` is float32; on a CUDA GPU it is the half precision that the model's configuration says
    it is stored in, unless that is bfloat16 and the GPU cannot compute in it.

    Args:
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        device: where the model will run; not `auto`.
        configuration: the model's config.json.

    Raises:
        ModelError: another name.
    """
    if dtype in _DTYPES:
        return _DTYPES[dtype]
    if dtype != "auto":
        raise ModelError(f"no precision {dtype!r}: set `model.dtype` to auto, {', '.join(_DTYPES)}")
    # Processors compute half precision slower than float32, some of them a hundred times.
    if not device.startswith("cuda"):
        return torch.float32
    stored = _stored_dtype(configuration)
    if stored == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return stored


def _stored_dtype(configuration: Path) -> torch.dtype:
    """Precision that a config.json names; float32 where it names none that is known here."""
    whole = json.loads(configuration.read_text(encoding="utf-8"))
    for part in (whole, whole.get("text_config") or {}):
        # Which of the two keys stands there depends on the version of transformers.
        name = str(part.get("dtype") or part.get("torch_dtype")).removeprefix("torch.")
        if name in _DTYPES:
            return _DTYPES[name]
    return torch.float32
