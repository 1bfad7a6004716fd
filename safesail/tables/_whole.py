"""Write files so that a crash or a full disk never leaves half a file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from safesail.errors import StorageError


class WholeFile:
    """What is being written beside `path`; a file for whoever needs `write`.

    Only errors of the disk become storage errors here: whoever makes the content may fail for
    reasons of their own.
    """

    closed = False

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file = path, file

    def write(self, content: bytes) -> int:
        """Write all of `content`.

        Raises:
            StorageError: the disk is full.
        """
        waiting = memoryview(content).cast("B")
        size = len(waiting)
        with _reporting(self._path):
            while waiting:
                waiting = waiting[self._file.write(waiting) :]
        return size

    def flush(self) -> None:
        """Nothing: it has no buffer, so that closing it cannot fail after an error."""


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[WholeFile]:
    """A file that takes the place of `path` when the block ends, and is gone if the block fails.

    What a killed process left of the same file goes too.

    Raises:
        StorageError: the disk is full or the folder not writable; an earlier file is intact.
    """
    temporary = None
    try:
        with _reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = _temporary(path)
        with FileIO(descriptor, "wb") as file:
            yield WholeFile(path, file)
            with _reporting(path):
                os.fsync(file.fileno())
        with _reporting(path):
            # mkstemp makes files that only their owner may read; results are ordinary files.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename.

    Raises:
        StorageError: the disk is full or the folder not writable; an earlier file is intact.
    """
    with written_whole(path) as file:
        file.write(content)


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; "
            "what was there before is intact: free space or mend permissions, then run again"
        ) from error


def _temporary(path: Path) -> tuple[int, str]:
    """A file beside `path` to write to, locked for as long as it is open; those left over go."""
    prefix = f".{path.name}."
    for found in path.parent.iterdir():
        if found.name.startswith(prefix):
            with contextlib.suppress(OSError):  # another process deals with it
                _delete_if_left(found)
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix)
        # Before it was locked, another process may have taken it for left over.
        if not _lock(descriptor, wait=True) or os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)


def _delete_if_left(temporary: Path) -> None:
    """Delete a temporary file that no process holds."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        if _lock(descriptor, wait=False):
            os.unlink(temporary)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; False where another process has it, or the file system knows no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
