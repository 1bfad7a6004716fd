"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from safesail.errors import InputError, StorageError


@contextmanager
def written_folder(path: Path, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends, and is gone if the block fails.

    Args:
        path: where it is to be.
        may_replace: says of a folder that holds something whether it may go.

    Raises:
        InputError: something is there that may not be replaced.
        StorageError: it cannot be written; what was there is as it was.
    """
    path = path.absolute()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not may_replace(path)):
        raise InputError(f"{path} holds other things: it is not replaced; give another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as place:
            new, old = Path(place) / "new", Path(place) / "old"
            new.mkdir()
            yield new
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(new, path)
            except OSError:
                if old.exists():
                    os.rename(old, path)
                raise
    except OSError as error:
        raise StorageError(f"could not write {path}: {error.strerror or error}") from error


def holds_only(*patterns: str) -> Callable[[Path], bool]:
    """Whether a folder holds nothing but what an earlier export made there, by its names."""
    return lambda folder: all(
        any(fnmatchcase(entry.name, pattern) for pattern in patterns) for entry in folder.iterdir()
    )


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file of a folder that nobody sees yet, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
