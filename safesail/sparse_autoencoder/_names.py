"""What the names of published SAEs tell before anything is loaded: layer, width, L0."""

from __future__ import annotations

import re

_LAYER = re.compile(
    r"(?:layers?[._]?|blocks\.)(\d+)"
    r"|^l(\d+)[ram]_|(?:^|[/-])L(\d+)[RAM](?=[/-]|$)"  # Llama Scope: ids, folders
    r"|-SAE-l(\d+)|_L(\d+)_H"  # files of single SAEs; those on attention heads
)
_BLOCK = re.compile(r"\.(\d+)(\.|$)")
# "16k" in a name, and numbers written out where only widths are.
_WIDTH_LABEL = re.compile(
    r"(?:width_|v5[-_]|-w-?|_w-?|-W)(\d+)([km])(?![a-z])|width-2pow(\d+)", re.IGNORECASE
)
_WIDTH_NUMBER = re.compile(r"hook_\w+?_(\d{3,})(?=$|[:/])")
# Llama Scope gives the width in multiples of the model's 4,096.
_WIDTH_FACTOR = re.compile(r"^l\d+[ram]_(\d+)x$")
_LLAMA_SCOPE_SIZE = 4096
_L0 = re.compile(r"average_l0_(\d+)")


def block_number(hook_point: str | None) -> int | None:
    """Number of the block that a hook point or a Hugging Face module lies in, by its name."""
    match = _BLOCK.search(hook_point or "")
    return int(match[1]) if match else None


def layer_of_name(name: str) -> int | None:
    """Layer that an id or a path names."""
    match = _LAYER.search(name)
    return int(next(filter(None, match.groups()))) if match else None


def width_of_name(name: str) -> int | None:
    """Number of features that an id or a path names; "65k" is the power of two 65,536."""
    label = _WIDTH_LABEL.search(name)
    if label is not None:
        if label[3]:
            return 1 << int(label[3])
        return _labelled(int(label[1]), 1_000_000 if label[2].lower() == "m" else 1_000)
    number = _WIDTH_NUMBER.search(name)
    if number is not None:
        return int(number[1])
    factor = _WIDTH_FACTOR.search(name)
    return _LLAMA_SCOPE_SIZE * int(factor[1]) if factor else None


def l0_of_name(name: str) -> float | None:
    """Mean number of active features that a path names, as Gemma Scope's do."""
    match = _L0.search(name)
    return float(match[1]) if match else None


def _labelled(count: int, unit: int) -> int:
    """Widths are powers of two where one has that label, counted by 1,000 or by 1,024."""
    binary = 1 << 20 if unit == 1_000_000 else 1 << 10
    powers = (1 << exponent for exponent in range(8, 25))
    return next((p for p in powers if count in (p // unit, p // binary)), count * binary)
