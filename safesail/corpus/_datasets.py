"""Rows of datasets of the Hugging Face hub, and of those that `datasets` saved in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safesail.errors import InputError
from safesail.study import CorpusSource


def hub_rows(source: CorpusSource, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a dataset on the hub, streamed.

    Raises:
        InputError: it is absent or gated, or the network fails, at the start or half way.
    """
    import datasets

    read = 0
    try:
        rows = datasets.load_dataset(
            source.hub, source.configuration, split=source.split, streaming=True
        )
        for row in _narrowed(rows, columns):
            read += 1
            yield row
    # Each library between here and the hub fails in a way of its own.
    except Exception as error:
        after = f" after {read:,} rows" if read else ""
        raise InputError(
            f"cannot read dataset {source.hub!r} from the hub{after}: {_reason(error)}; "
            "check its name, the network and, for gated data, `hf auth login`"
        ) from error


def saved_rows(path: Path, split: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a folder that `save_to_disk` wrote, mapped into memory rather than read into it.

    Raises:
        InputError: the folder is no such dataset, is damaged, or has no such split.
    """
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
        if isinstance(found, dict):
            if split not in found:
                raise InputError(f"{path} has no split {split!r}; there are {', '.join(found)}")
            found = found[split]
        yield from _narrowed(found, columns)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"cannot read {path} as a folder made by save_to_disk of datasets: {_reason(error)}"
        ) from error


def _narrowed(rows: Any, columns: Sequence[str]) -> Any:
    """Only the columns needed, so that images and sounds beside them are not decoded."""
    # A streamed dataset may not know its columns before it is read.
    if rows.column_names is None or not set(columns) <= set(rows.column_names):
        return rows
    return rows.select_columns(list(columns))


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
