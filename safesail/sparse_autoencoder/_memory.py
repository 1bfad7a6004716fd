"""How much of a device SAEs may take."""

from __future__ import annotations

import os

import torch


def memory_limit(device: str) -> float:
    """Bytes that SAEs may hold together: half of what the device has."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0] / 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
