"""Text and JSON that any reader takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

# PostgreSQL, which Neuronpedia keeps its text in, takes neither; halves of pairs are not UTF-8.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that is valid UTF-8 without NUL: what is not becomes the replacement character."""
    return _UNUSABLE.sub("\ufffd", text)


def plain(value: Any) -> Any:
    """A value that JSON has: text clean, moments as ISO 8601, what is no finite number null."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of a plain value, text as it is read; keys stay in their order."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def short_floats(values: Iterable[float]) -> list[float]:
    """Numbers of 32 bits as the shortest decimals that stand for them: 0.1, not 0.10000000149."""
    return [float(str(value)) for value in np.asarray(list(values), np.float32)]


def number(value: Any) -> float | None:
    """A finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
