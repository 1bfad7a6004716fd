"""Read files that others wrote, with one line for what is wrong in them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safesail.errors import InputError

# Far above any SAE's width, and what a 32-bit integer holds.
_LARGEST_FEATURE = 2**31 - 1

PairsHook = Callable[[list[tuple[str, Any]]], Any]


def fault(path: Path, where: str, what: str) -> InputError:
    """An error that names the file and the place in it."""
    return InputError(f"{path}{f', {where}' if where else ''}: {what}")


def read_text(path: Path) -> str:
    """All of a UTF-8 file.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise fault(path, "", f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise fault(path, f"byte {error.start}", "not UTF-8") from None


def parse_json(path: Path, where: str, text: str, pairs_hook: PairsHook | None = None) -> Any:
    """The value of JSON text.

    Raises:
        InputError: it is not JSON, or nested deeper than anyone would.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}"
        raise fault(path, place, f"not JSON: {error.msg} at column {error.colno}") from None
    except (RecursionError, ValueError) as error:  # nested too deep, or an endless number
        raise fault(path, where, f"JSON that cannot be read: {error}") from None


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file, gzipped or not, each with its place: `line 3`.

    Raises:
        InputError: it cannot be read, is damaged, or a line is no JSON object.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            # By bytes: text would also end lines where JSON strings hold other line separators.
            for number, line in enumerate(file, start=1):
                where = f"line {number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError:
                    raise fault(path, where, "not UTF-8") from None
                if not text:
                    continue
                value = parse_json(path, where, text)
                if not isinstance(value, dict):
                    raise fault(path, where, "not a JSON object")
                yield where, value
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, "", f"cannot be read: {error}") from None


def feature_index(path: Path, where: str, text: str) -> int:
    """A feature's index.

    Raises:
        InputError: it is not a whole number in range.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise fault(path, where, f"{text[:40]!r} is not the index of a feature")
    index = int(text)
    if index > _LARGEST_FEATURE:
        raise fault(path, where, f"{text} is not the index of a feature: too large")
    return index
