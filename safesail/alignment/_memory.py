"""Whether an error says that memory is short."""

from __future__ import annotations

# Of torch's allocator for processors (Linux, Windows), of CUDA's own calls, of cuBLAS, which
# allocates a workspace. None of these has a class of its own.
_SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """By Python's and torch's classes, and by what torch says where it has none."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in _SAYINGS)
