"""Write tables so that a crash or a full disk never leaves half a file; read them back."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from safesail.errors import StorageError
from safesail.tables._schemas import TableSchema

_SCHEMA_KEY = b"safesail_schema"
_CONFIGURATION_KEY = b"safesail_configuration"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename.

    Raises:
        StorageError: the disk is full or the folder not writable; an earlier file is intact.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read; results are ordinary files.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path}: {error.strerror or error}; "
            "what was there before is intact: free space or mend permissions, then run again"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_table(
    path: Path, table: pa.Table, schema: TableSchema, configuration: dict[str, Any]
) -> None:
    """Write a table with its schema's version and the configuration that made it.

    Raises:
        StorageError: as in `write_bytes`.
    """
    metadata = {
        _SCHEMA_KEY: f"{schema.name}/{schema.version}".encode(),
        _CONFIGURATION_KEY: json.dumps(configuration, sort_keys=True).encode(),
    }
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_table(path: Path, schema: TableSchema) -> pa.Table:
    """Read a table that `write_table` wrote: the schema's columns, null where the file lacks one.

    Raises:
        StorageError: the file is missing, not Parquet, or of another schema version.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"cannot read {path}: {error}; delete it and run its stage again"
        ) from error
    found = (table.schema.metadata or {}).get(_SCHEMA_KEY, b"none").decode()
    expected = f"{schema.name}/{schema.version}"
    if found != expected:
        raise StorageError(
            f"{path} holds schema {found}, this safesail reads {expected}; "
            "run its stage again with --overwrite"
        )
    # Columns may be added under one version: a file may have more or fewer than are known here.
    for column in schema.columns:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    return table.select([column.name for column in schema.columns])


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
