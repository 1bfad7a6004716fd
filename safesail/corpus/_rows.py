"""Rows of a source as they are, for whoever needs other columns than a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safesail.corpus._datasets import hub_rows
from safesail.corpus._files import file_rows, locate
from safesail.study import CorpusSource


def read_rows(
    source: CorpusSource, folder: Path, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with their place, `file.jsonl, row 3`; an empty line's first column holds None.

    Args:
        source: where they lie; its settings of columns do not count here.
        folder: base of relative paths.
        columns: what is needed of a row; a row may lack some of them, or hold more.

    Raises:
        InputError: a file is missing, unreadable or malformed, or the hub fails.
    """
    for path in locate(source, folder):
        name = str(source.hub) if path is None else path.name
        rows = hub_rows(source, columns) if path is None else file_rows(path, source.split, columns)
        for number, row in enumerate(rows, start=1):
            yield f"{name}, row {number}", row
