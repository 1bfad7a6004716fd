"""A folder that the `datasets` library and the Hugging Face hub read: Parquet and a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from safesail.tables._files import write_table
from safesail.tables._schemas import CORRECTIONS
from safesail.tables.formats._copies import TableFile, copy_tables
from safesail.tables.formats._folder import holds_only, write_file, written_folder

CARD = "README.md"
"""Name of a folder's card."""


def write_dataset(
    files: Sequence[TableFile],
    folder: Path,
    write_card: Callable[[Mapping[str, int]], str],
    *,
    corrections: pa.Table,
) -> None:
    """Write tables as Parquet below `data/`, and the card.

    Args:
        files: the tables' files.
        folder: where; an earlier export there is replaced.
        write_card: gives the card, from the rows by table.
        corrections: what people corrected; no file where nothing.

    Raises:
        InputError: the folder holds other things.
        StorageError: a table cannot be read, or the folder not written.
    """
    with written_folder(folder, holds_only("data", CARD)) as new:
        rows = copy_tables(list(files), new / "data")
        if corrections.num_rows:
            write_table(new / "data" / "corrections.parquet", corrections, CORRECTIONS, {})
            rows[CORRECTIONS.name] = corrections.num_rows
        write_file(new / CARD, write_card(rows))
