"""`safesail align` on a small study: its arguments, and rows to a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., tuple[int, str, str]]
WORDS = ("dog", "cat", "boat", "house", "nurse", "baker", "clerk", "singer")
SAES = ("--sae", "first", "--sae", "upper")
SMALL = ("--rank", "2", "--steps", "3", "--batch-size", "4", "--max-tokens", "48")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def aligning(study: Path, texts: Path, *more: Any) -> list[Any]:
    data = ["--data", texts / "safe.jsonl", "--benign", texts / "benign.jsonl"]
    return ["align", "--study", study, *data, *SAES, *SMALL, *more]
