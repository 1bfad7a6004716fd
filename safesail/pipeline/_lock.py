"""One process at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder, made where it is missing, against other processes that ask for it.

    The lock is the system's, on the folder itself: it leaves no file, and ends with the process
    however that ends. Where a file system knows no locks, as some network disks, none is held.

    Args:
        folder: what is held.
        wait: until whoever holds it is done.

    Yields:
        Whether it may be worked on; False where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield True
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            free = False
        except OSError:
            pass  # no locks here
        yield free
    finally:
        os.close(descriptor)
