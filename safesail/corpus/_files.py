"""Rows of local files, and where they lie."""

from __future__ import annotations

import csv
import glob
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from safesail.corpus._datasets import saved_rows
from safesail.errors import InputError
from safesail.study import CorpusSource

Row = dict[str, Any]

# Rows of Parquet decoded at once: a thousand long documents are some ten megabytes.
_PARQUET_ROWS = 1024


def locate(source: CorpusSource, folder: Path) -> list[Path | None]:
    """Files and folders of a source, in the order they are read; one None for a hub dataset.

    Raises:
        InputError: there is no such file, or a pattern matches none or several kinds.
    """
    if source.path is None:
        return [None]
    path = folder / Path(source.path).expanduser()
    if "*" not in source.path:
        if not path.exists():
            raise InputError(f"corpus file {path} does not exist")
        return [path]
    # Brackets and question marks are parts of names: only the star is a pattern here.
    pattern = glob.escape(str(path)).replace("[*]", "*")
    found = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    if not found:
        raise InputError(f"corpus pattern {path} matches no file")
    kinds = sorted({_kind(path) for path in found})
    if len(kinds) > 1:
        raise InputError(
            f"corpus pattern {path} matches files of several kinds ({', '.join(kinds)}): narrow it"
        )
    return [*found]


def data_files(paths: Sequence[Path], split: str) -> list[Path]:
    """Files that hold the rows: the paths themselves, and the data of folders among them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            folder = path / split if (path / split).is_dir() else path
            # What `datasets` computes from the data it leaves beside it as cache-*.arrow.
            data = (file for file in folder.glob("*.arrow") if not file.name.startswith("cache-"))
            found += sorted(data)
        else:
            found.append(path)
    return found


def file_rows(path: Path, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a file, or of a folder that `datasets` saved.

    Args:
        path: of the file or folder.
        split: of a folder that holds several.
        columns: what is needed of a row, the text's column first.

    Raises:
        InputError: unknown kind of file, unreadable or malformed.
    """
    if path.is_dir():
        return saved_rows(path, split, columns)
    if _kind(path) not in _READERS:
        raise InputError(
            f"{path}: a corpus is read from {', '.join(_READERS)}, "
            "or a folder made by save_to_disk of datasets"
        )
    return _READERS[_kind(path)](path, columns)


def _kind(path: Path) -> str:
    """What a file's name ends with: two suffixes where the last says how it is compressed."""
    return "".join(path.suffixes[-2:] if path.suffix in (".gz", ".zst") else path.suffixes[-1:])


def _lines(path: Path) -> Iterator[str]:
    try:
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", newline="\n") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix not in (".gz", ".zst"):
        return path.open("rb")
    import pyarrow as pa

    # It tells the compression from the name.
    stream: IO[bytes] = pa.input_stream(str(path))
    return stream


def _jsonl_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            yield {columns[0]: None}
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits too
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object with {columns[0]!r}")
        yield row


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        # The number is that of the last good row, and the next one begins below it.
        raise InputError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from error


def _text_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    return ({columns[0]: line.rstrip("\r\n")} for line in _lines(path))


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Buffered, a column's pages are read one by one instead of a whole row group at once.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            for column in columns:
                if column not in names:
                    raise InputError(
                        f"{path.name}: no column {column!r}; there are {', '.join(names)}: "
                        "set text_column or id_column"
                    )
            for batch in file.iter_batches(_PARQUET_ROWS, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path} as Parquet: {error}") from error


_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".jsonl.gz": _jsonl_rows,
    ".jsonl.zst": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
