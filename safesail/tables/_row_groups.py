"""Cut a stream of rows into the row groups of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# A group ends with the first feature that fills it: 28 features with 220 contexts each, 0.8
# megabytes. With fewer rows the file's index, which every reader reads, grows faster than the
# groups shrink; with more, DuckDB, which reads a million bytes at a time, reads twice for a group.
LEAST_ROWS = 6_144


def row_groups(parts: Iterable[pa.Table], grouped_by: str) -> Iterator[pa.Table]:
    """Tables of at least 6,144 rows, the last one aside, that end where the column changes.

    Holds what makes up one group and one part at a time.

    Args:
        parts: rows in ascending order of the column, within each part and from part to part.
        grouped_by: name of a column of integers.

    Raises:
        ValueError: the rows are not in ascending order.
    """
    waiting: list[pa.Table] = []
    rows = 0
    last = None
    for part in parts:
        if not part.num_rows:
            continue
        last = _require_ascending(part, grouped_by, last)
        waiting.append(part)
        rows += part.num_rows
        if rows <= LEAST_ROWS:
            continue
        table = pa.concat_tables(waiting)
        begin = 0
        for end in _ends(_values(table, grouped_by)):
            yield table.slice(begin, end - begin)
            begin = end
        # What is left may go on in the next part.
        waiting, rows = [table.slice(begin)], table.num_rows - begin
    if rows:
        yield pa.concat_tables(waiting)


def _ends(values: NDArray[np.int64]) -> Iterator[int]:
    """Where groups end for certain: at a change of value, each after enough rows."""
    changes = np.flatnonzero(np.diff(values)) + 1
    begin = 0
    while (place := int(np.searchsorted(changes, begin + LEAST_ROWS))) < len(changes):
        begin = int(changes[place])
        yield begin


def _require_ascending(part: pa.Table, grouped_by: str, last: int | None) -> int:
    values = _values(part, grouped_by)
    if (last is not None and values[0] < last) or (np.diff(values) < 0).any():
        raise ValueError(f"rows do not come in ascending order of {grouped_by}")
    return int(values[-1])


def _values(table: pa.Table, grouped_by: str) -> NDArray[np.int64]:
    column = table[grouped_by]
    if column.null_count:
        raise ValueError(f"{grouped_by} is null in some rows")
    return column.to_numpy()
