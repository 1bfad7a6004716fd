"""One process at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safesail.errors import StorageError, StudyConflictError


@contextmanager
def held(folder: Path, *, wait: bool, shared: bool = False) -> Iterator[bool]:
    """Hold a folder, made where it is missing, against other processes that ask for it.

    The lock is the system's, on the folder itself: it leaves no file, and ends with the process
    however that ends. Where a file system knows no locks, as some network disks, none is held.

    Args:
        folder: what is held.
        wait: until whoever holds it is done.
        shared: others may hold it too, where they ask for it shared.

    Yields:
        Whether it may be worked on; False where another process holds it.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"could not make {folder}: {error.strerror or error}; give another folder"
        ) from error
    if sys.platform == "win32":
        yield True
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            free = False
        except OSError:
            pass  # no locks here
        yield free
    finally:
        os.close(descriptor)


@contextmanager
def taken(folder: Path, shard: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Hold the work on a plan: all of it alone, or a shard of it beside those who do others.

    Args:
        folder: the plan's.
        shard: number and count; (1, 1) is all.

    Raises:
        StudyConflictError: another process holds what this one would.
    """
    from safesail.contexts import shard_name

    alone = shard == (1, 1)
    with held(folder / shard_name((1, 1)), wait=False, shared=not alone) as free:
        if not free:
            others = "the same, or a shard of it," if alone else "the same, not in shards,"
            raise StudyConflictError(
                f"another process collects {others} into {folder}: wait until it is done"
            )
        if alone:
            yield
            return
        with held(folder / shard_name(shard), wait=False) as free:
            if not free:
                raise StudyConflictError(
                    f"another process collects the same shard into {folder}: wait until it is done"
                )
            yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder of unfinished work; left empty, it goes.

    Raises:
        StudyConflictError: another process holds it.
    """
    with held(folder, wait=False) as free:
        if not free:
            raise StudyConflictError(
                f"another process works in {folder}: wait until it is done, or give another folder"
            )
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
