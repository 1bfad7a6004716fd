"""The text of the windows that something refers to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safesail.contexts._windows import Windows
from safesail.language_model import TokenizedText

SCHEMA = pa.schema(
    [
        ("window", pa.int64()),
        ("document", pa.string()),
        ("start", pa.int64()),
        ("tokens", pa.list_(pa.string())),
        ("token_ids", pa.list_(pa.int32())),
    ]
)


class WindowTexts:
    """Windows by key: document, place of the first token in it, token strings and ids."""

    def __init__(self, table: pa.Table | None = None) -> None:
        """Begin with a table of `SCHEMA`, or with none."""
        self._tables = [SCHEMA.empty_table() if table is None else table]

    def __len__(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def add(self, wanted: Iterable[int], windows: Windows, texts: Sequence[TokenizedText]) -> None:
        """Keep the windows of these numbers."""
        rows = []
        for number in wanted:
            text, first = texts[windows.text[number]], int(windows.first[number])
            span = slice(first, first + int(windows.length[number]))
            rows.append(
                (
                    int(windows.key[number]),
                    text.document,
                    text.start + first,
                    text.token_strings[span],
                    text.token_ids[span],
                )
            )
        if rows:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(list(c), f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            self._tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))

    def merge(self, other: WindowTexts) -> None:
        """Take in windows of another part of the corpus."""
        self._tables += other._tables

    def keep(self, keys: NDArray[np.int64]) -> None:
        """Drop all windows but those of these keys."""
        table = self.table()
        mask = pc.is_in(table["window"], value_set=pa.array(keys))
        self._tables = [table.filter(mask).combine_chunks()]

    def table(self) -> pa.Table:
        """All windows held, as a table of `SCHEMA`."""
        return pa.concat_tables(self._tables)
