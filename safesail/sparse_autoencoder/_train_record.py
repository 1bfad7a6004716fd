"""What a trained SAE's folder says of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safesail.errors import StorageError

SETTINGS_KEY = "safesail_settings"
"""Key of cfg.json's metadata under which the settings of a training stand."""


def training_record(folder: Path) -> dict[str, Any] | None:
    """The metadata of an SAE that safesail trained; None of another, or where there is none.

    Raises:
        StorageError: its cfg.json cannot be read.
    """
    path = folder / "cfg.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}; delete its folder") from error
    metadata = content.get("metadata") if isinstance(content, dict) else None
    known = isinstance(metadata, dict) and SETTINGS_KEY in metadata
    return metadata if known else None


def trained_folders(folder: Path) -> list[Path]:
    """Folders in `folder` with an SAE that safesail trained, by name."""
    return [path for path in sorted(folder.glob("*")) if _is_trained(path)]


def _is_trained(folder: Path) -> bool:
    try:
        return training_record(folder) is not None
    except StorageError:
        return False  # whoever loads it as a candidate says what is wrong
