"""LoRA adapters that PEFT alone made, trained a little, as another tool would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_alignment as tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model


def foreign_adapter(base: Path, folder: Path, **settings: Any) -> PeftModel:
    """With random factors, by default on all linear modules, saved in a folder.

    Args:
        base: of `models`.
        folder: where it goes.
        settings: of PEFT's LoraConfig.
    """
    config = LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": "all-linear", **settings})
    adapted = get_peft_model(tiny.load(base), config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                value.normal_()
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return adapted
