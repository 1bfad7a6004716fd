"""Memory that was freed, back to the operating system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back_memory() -> None:
    """Have the C library return what it holds of freed memory, where it is glibc.

    It keeps tensors' memory for the next ones; as batches differ in shape, the gaps between them
    grow for as long as a run lasts. Nothing happens with other C libraries.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
