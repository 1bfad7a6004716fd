"""Documents from local files and the Hugging Face hub, read one at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safesail.errors import InputError
from safesail.fingerprint import fingerprint_files
from safesail.study import CorpusSource
from safesail.unicode import is_unicode


@dataclass(frozen=True)
class Document:
    """A text with an id that is the same in every run."""

    id: str
    text: str


class Corpus:
    """Documents of several sources, read in turn: one from each, until all are read.

    A text that stands in the corpus more than once is read once, so that no explanation is scored
    on a copy of a document it was written from.

    Iterating again reads the sources again from their start, so that passes see the same order.

    Raises (while iterating):
        InputError: a file is missing, not UTF-8 or malformed (the row is named), the text column
            is absent, or the sources hold no text at all.
    """

    def __init__(
        self, sources: Sequence[CorpusSource], folder: Path, extra: Sequence[Document] = ()
    ) -> None:
        """Describe a corpus; nothing is read yet.

        Args:
            sources: files (paths relative to `folder`) and hub datasets.
            folder: base of relative paths.
            extra: further documents, one more source (the concepts' own texts).
        """
        self.sources = tuple(sources)
        self.folder = folder
        self.extra = tuple(extra)

    def __iter__(self) -> Iterator[Document]:
        streams = [
            _read_source(source, self.folder, name)
            for source, name in zip(self.sources, _names(self.sources), strict=True)
        ]
        if self.extra:
            streams.append(iter(self.extra))
        seen: set[int] = set()
        while streams:
            for stream in list(streams):
                document = next(stream, None)
                if document is None:
                    streams.remove(stream)
                elif (digest := _digest(document.text)) not in seen:
                    seen.add(digest)
                    yield document
        if not seen:
            names = ", ".join(source.path or f"hub {source.hub}" for source in self.sources)
            raise InputError(f"the corpus is empty: no text in {names}")

    def fingerprint(self) -> str:
        """What the corpus is made of, as text that changes when a local file does.

        Raises:
            InputError: a local file is missing.
        """
        parts = []
        for source in self.sources:
            if source.path is None:
                parts.append(f"hub:{source.hub}:{source.configuration}:{source.split}")
            else:
                path = _existing(source.path, self.folder)
                parts.append(f"{path.name}:{source.text_column}:{fingerprint_files([path])}")
        if self.extra:
            texts = sorted(document.text for document in self.extra)
            parts.append(f"{len(texts)} concept texts:{_digest(chr(0).join(texts)):016x}")
        return ", ".join(parts)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _existing(reference: str, folder: Path) -> Path:
    path = folder / Path(reference).expanduser()
    if not path.is_file():
        raise InputError(f"corpus file {path} does not exist")
    return path


def _names(sources: Sequence[CorpusSource]) -> list[str]:
    """What document ids begin with: a file's name, and a number where two sources share one."""
    bases = [Path(s.path).name if s.path is not None else str(s.hub) for s in sources]
    earlier = [bases[:place].count(base) for place, base in enumerate(bases)]
    return [
        f"{base}({number + 1})" if number else base
        for base, number in zip(bases, earlier, strict=True)
    ]


def _read_source(source: CorpusSource, folder: Path, name: str) -> Iterator[Document]:
    """Documents of one source; rows whose text is blank are passed over."""
    if source.path is None:
        rows = _hub_rows(source)
    else:
        path = _existing(source.path, folder)
        readers = {
            ".jsonl": _jsonl_rows,
            ".csv": _csv_rows,
            ".parquet": _parquet_rows,
            ".txt": _text_rows,
        }
        if path.suffix not in readers:
            raise InputError(f"{path}: a corpus is read from {', '.join(readers)}")
        rows = readers[path.suffix](path, source.text_column)
    for number, row in enumerate(rows, start=1):
        text = row.get(source.text_column)
        if text is None and source.text_column not in row:
            raise InputError(
                f"{name}, row {number}: no column {source.text_column!r}; "
                f"there are {', '.join(map(str, row))}: set text_column"
            )
        if text is not None and (not isinstance(text, str) or not is_unicode(text)):
            raise InputError(f"{name}, row {number}: {source.text_column!r} is not text")
        if text and text.strip():
            yield Document(f"{name}:{number}", text)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _jsonl_rows(path: Path, column: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            yield {column: None}
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected an object with {column!r}")
        yield row


def _csv_rows(path: Path, column: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        yield from reader
    except csv.Error as error:
        # The number is that of the last good row, and the next one begins below it.
        raise InputError(f"{path}, line {reader.line_num + 1}: not CSV ({error})") from error


def _text_rows(path: Path, column: str) -> Iterator[dict[str, Any]]:
    return ({column: line.rstrip("\r\n")} for line in _lines(path))


def _parquet_rows(path: Path, column: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                yield dict.fromkeys(file.schema_arrow.names)
            for batch in file.iter_batches(columns=[column]):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path} as Parquet: {error}") from error


def _hub_rows(source: CorpusSource) -> Iterable[dict[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(
            source.hub, source.configuration, split=source.split, streaming=True
        )
    except (OSError, ValueError, ConnectionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"cannot read dataset {source.hub!r} from the hub: {reason}; "
            "check its name, the network and, for gated data, `hf auth login`"
        ) from error
