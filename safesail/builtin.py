"""Files that ship with safesail, named `builtin:...` in a study."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

PREFIX = "builtin:"


def builtin_path(*parts: str) -> Path:
    """Path of a file or folder below the package's data, whether it exists or not."""
    return Path(str(files("safesail.data"))).joinpath(*parts)
