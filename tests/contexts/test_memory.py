"""Freed memory goes back to the operating system while collecting goes on."""

import os
import sys
from pathlib import Path

import pytest
import torch

from safesail.contexts._memory import give_back_memory

# Below what the C library asks of the system one by one, so that it keeps what is freed.
_FLOATS = 16_000
_TENSORS = 3_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc keeps memory")
def test_memory_below_a_tensor_that_stays_goes_back() -> None:
    tensors = [torch.ones(_FLOATS) for _ in range(_TENSORS)]
    stays = tensors[-1]
    del tensors
    before = _resident()
    give_back_memory()
    given_back = before - _resident()
    assert given_back > 0.8 * 4 * _FLOATS * _TENSORS
    assert float(stays[0]) == 1.0


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
