"""Copies of a study's tables for others: without this machine's paths and addresses' secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from safesail.tables._files import read_configuration, read_table, write_table
from safesail.tables._schemas import TableSchema


@dataclass(frozen=True)
class TableFile:
    """A file of a table.

    Attributes:
        schema: the table's.
        path: the file.
        name: where it goes in a folder for others, such as `features/first.parquet`.
    """

    schema: TableSchema
    path: Path
    name: str


def copy_tables(files: list[TableFile], folder: Path) -> dict[str, int]:
    """Copy tables into a folder, every file with all columns of its schema.

    Returns:
        Rows, by name of the table.

    Raises:
        StorageError: a file cannot be read or written.
    """
    rows: dict[str, int] = {}
    for file in files:
        # Parquet calls the items of a list otherwise than the schema does.
        table = _shareable(read_table(file.path, file.schema)).cast(file.schema.arrow())
        configuration = without_paths(read_configuration(file.path) or {})
        write_table(folder / file.name, table, file.schema, configuration)
        rows[file.schema.name] = rows.get(file.schema.name, 0) + table.num_rows
    return rows


def _shareable(table: pa.Table) -> pa.Table:
    for name, shared in (("source", last_part), ("judge_url", without_secrets)):
        if name in table.column_names:
            at = table.column_names.index(name)
            values = [None if v is None else shared(v) for v in table[name].to_pylist()]
            table = table.set_column(at, table.schema.field(at), pa.array(values, pa.string()))
    return table


def without_paths(value: Any) -> Any:
    """Settings in which every absolute path is its last part."""
    if isinstance(value, str):
        return last_part(value)
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return value


def last_part(text: str) -> str:
    """The last part of an absolute path; other text as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name
    return text


def without_secrets(url: str) -> str:
    """An address without name, password and query, which can hold keys; "" where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
