"""Write result tables with what made them; read them back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safesail.errors import StorageError
from safesail.tables._row_groups import row_groups
from safesail.tables._schemas import TableSchema
from safesail.tables._whole import written_whole

_SCHEMA_KEY = b"safesail_schema"
_CONFIGURATION_KEY = b"safesail_configuration"


def write_table(
    path: Path, table: pa.Table, schema: TableSchema, configuration: dict[str, Any]
) -> None:
    """Write a table with its schema's version and the configuration that made it.

    Raises:
        StorageError: the disk is full or the folder not writable; an earlier file is intact.
        ValueError: as in `write_parts`.
    """
    write_parts(path, [table], schema, configuration)


def write_parts(
    path: Path,
    parts: Iterable[pa.Table | pa.RecordBatch],
    schema: TableSchema,
    configuration: dict[str, Any],
) -> None:
    """Write a table that comes in parts, whole or not at all, holding one part at a time.

    Where the schema names a column that files are read by, row groups end where it changes: at
    the first such row after 6,144.

    Args:
        path: the file.
        parts: rows of the table; where it is grouped, in ascending order of that column.
        schema: the table's schema.
        configuration: the settings that made it.

    Raises:
        StorageError: the disk is full or the folder not writable; an earlier file is intact.
        ValueError: rows of other columns, or not in ascending order.
    """
    metadata = {
        _SCHEMA_KEY: f"{schema.name}/{schema.version}".encode(),
        _CONFIGURATION_KEY: json.dumps(configuration, sort_keys=True).encode(),
    }
    with (
        written_whole(path) as file,
        pq.ParquetWriter(
            file,
            schema.arrow().with_metadata(metadata),
            compression="zstd",
            use_dictionary=[column.path for column in schema.columns if column.repeats],
            write_statistics=_with_statistics(schema),
        ) as writer,
    ):
        for group in _groups(parts, schema):
            writer.write_table(group)


def _with_statistics(schema: TableSchema) -> bool | list[str]:
    """The grouping column and those before it, which say whose file it is.

    Others hold the same values in every group: their statistics would skip none, and make the
    index a quarter larger, which every reader reads.
    """
    if schema.grouped_by is None:
        return True
    names = [column.name for column in schema.columns]
    return names[: names.index(schema.grouped_by) + 1]


def _groups(parts: Iterable[pa.Table | pa.RecordBatch], schema: TableSchema) -> Iterator[pa.Table]:
    tables = (
        pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
        for part in parts
    )
    return row_groups(tables, schema.grouped_by) if schema.grouped_by else tables


def read_table(path: Path, schema: TableSchema, only: Collection[int] | None = None) -> pa.Table:
    """Read a table that was written here: the schema's columns, null where the file lacks one.

    Args:
        path: the file.
        schema: the table's schema.
        only: values of the column that the table is grouped by; of the file's row groups, those
            that can hold one of them are read. None for all rows.

    Raises:
        StorageError: the file is missing, not Parquet, or of another schema version.
    """
    try:
        _require_schema(path, schema)
        # Without `partitioning`, a folder's name such as `run=3` would become a column.
        table = pq.read_table(path, filters=_filter(schema, only), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {error}; delete it and run its stage again"
        ) from error
    # Columns may be added under one version: a file may have more or fewer than are known here.
    for column in schema.columns:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    return table.select([column.name for column in schema.columns])


def _require_schema(path: Path, schema: TableSchema) -> None:
    found = (pq.read_schema(path).metadata or {}).get(_SCHEMA_KEY, b"none").decode()
    expected = f"{schema.name}/{schema.version}"
    if found != expected:
        raise StorageError(
            f"{path} holds schema {found}, this safesail reads {expected}; "
            "run its stage again with --overwrite"
        )


def _filter(schema: TableSchema, only: Collection[int] | None) -> pc.Expression | None:
    if only is None:
        return None
    return pc.field(schema.grouped_by).isin(pa.array(sorted(only), pa.int64()))


def read_configuration(path: Path) -> dict[str, Any] | None:
    """The configuration that made a table; None where there is no such file.

    Raises:
        StorageError: the file is not Parquet.
    """
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {error}; delete it and run its stage again"
        ) from error
    return dict(json.loads(metadata.get(_CONFIGURATION_KEY, b"{}")))
