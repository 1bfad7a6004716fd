"""Whoever reads one feature of a large contexts file reads little of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from safesail.errors import StorageError
from safesail.tables import CONTEXTS, read_contexts, read_table, write_parts

TOKENS = 32
VOCABULARY = 50_000
WINDOWS = 100_000
# As collected by default: half of the windows are active, at few of their tokens.
ACTIVE_SHARE, FIRING_SHARE = 0.55, 0.06


def realistic(features: int, rows: int, seed: int = 0) -> Iterator[pa.Table]:
    """Contexts of a hundred features at a time: windows of one corpus, words as common as words."""
    random = np.random.default_rng(seed)
    letters = random.integers(97, 123, (VOCABULARY, 8), dtype=np.uint8)
    lengths = np.clip(random.poisson(np.linspace(1, 6, VOCABULARY)), 1, 7)
    words = pa.array(
        [" " + bytes(row[:n]).decode() for row, n in zip(letters, lengths, strict=True)]
    )
    numbers = random.permutation(VOCABULARY).astype(np.int32)
    # Zipf's law: the chance of a word falls with its place.
    corpus = (VOCABULARY ** random.random((WINDOWS, TOKENS)) - 1).astype(np.int32)
    for first in range(0, features, 100):
        own = np.arange(first, min(first + 100, features)) * 3
        yield _contexts(own, rows, corpus, words, numbers, random)


def _contexts(
    features: NDArray[Any],
    rows: int,
    corpus: NDArray[Any],
    words: pa.Array,
    numbers: NDArray[Any],
    random: np.random.Generator,
) -> pa.Table:
    count = len(features) * rows
    window = random.integers(WINDOWS, size=count)
    active = random.random(count) < ACTIVE_SHARE
    fires = (random.random((count, TOKENS)) < FIRING_SHARE) & active[:, None]
    values = np.where(fires, random.gamma(2, 1.5, fires.shape), 0).astype(np.float32)
    token = corpus[window].ravel()
    offsets = pa.array(np.arange(0, count * TOKENS + 1, TOKENS, dtype=np.int32))
    kind = np.where(active, 0, random.integers(1, 3, count))
    weight = random.integers(1, 200, count).astype(float)
    columns = {
        "sae": pa.array(["layer12-resid-16k"] * count),
        "layer": pa.array([12] * count),
        "feature": pa.array(np.repeat(features, rows)),
        "split": pa.array(["explain", "score"]).take(pa.array(random.integers(0, 2, count))),
        "kind": pa.array(["active", "silent", "hard_silent"]).take(pa.array(kind)),
        "level": pa.array(np.where(active, random.integers(1, 11, count), 0)),
        "sample": pa.array(["top", "random"]).take(pa.array(random.integers(0, 2, count))),
        "document": pa.array([f"corpus.jsonl:{number // 12}" for number in window]),
        "start": pa.array(window % 12 * TOKENS),
        "tokens": pa.ListArray.from_arrays(offsets, words.take(pa.array(token))),
        "token_ids": pa.ListArray.from_arrays(offsets, pa.array(numbers[token])),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(values.ravel())),
        "peak": pa.array(values.max(1)),
        "peak_at": pa.array(values.argmax(1)),
        "weight": pa.array(np.where(random.random(count) < 0.1, np.nan, weight)),
    }
    schema = CONTEXTS.arrow()
    return pa.table([columns[n] for n in schema.names], names=schema.names).cast(schema)


def spans(path: Path, feature: int | None = None) -> list[tuple[int, int]]:
    """Begin and end of the row groups; with a feature, of those whose statistics admit it."""
    metadata = pq.read_metadata(path)
    found = []
    for number in range(metadata.num_row_groups):
        columns = [metadata.row_group(number).column(i) for i in range(metadata.num_columns)]
        statistics = next(c for c in columns if c.path_in_schema == "feature").statistics
        if feature is None or statistics.min <= feature <= statistics.max:
            # A column's chunk begins with its dictionary, where it has one.
            begin = min(c.dictionary_page_offset or c.data_page_offset for c in columns)
            found.append((begin, begin + sum(c.total_compressed_size for c in columns)))
    return found


def index_bytes(path: Path) -> int:
    """What lies behind the last row group: the footer, with its length and mark."""
    return path.stat().st_size - max(end for _, end in spans(path))


def test_reading_one_feature_leaves_the_other_row_groups_alone(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_parts(path, realistic(500, 60), CONTEXTS, {})
    whole = read_contexts(tmp_path)
    wanted = [30, 36]
    content = bytearray(path.read_bytes())
    (needed,) = {span for feature in wanted for span in spans(path, feature)}
    assert len(spans(path)) > 3
    for begin, end in spans(path):
        if (begin, end) != needed:
            content[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(content)
    assert repr(read_contexts(tmp_path, wanted)) == repr({n: whole[n] for n in wanted})
    assert read_contexts(tmp_path, [31]) == {}
    assert read_contexts(tmp_path, []) == {}
    for damaged in (None, [30, 897]):
        with pytest.raises(StorageError, match="cannot read"):
            read_table(path, CONTEXTS, damaged)


class CountingFiles(LocalFileSystem):
    """Local files that count the bytes that are read of them."""

    protocol = "counted"
    count = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file, files = super()._open(path, mode, **options), self

        class Counted:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def read(self, size: int = -1) -> bytes:
                content = file.read(size)
                files.count += len(content)
                return content

        return Counted()


@pytest.mark.proof
def test_one_of_20000_features_touches_under_one_percent(
    tmp_path: Path, record_property: Any
) -> None:
    path = tmp_path / "part-00000.parquet"
    write_parts(path, realistic(20_000, 60), CONTEXTS, {})
    size = path.stat().st_size
    record_property("bytes", size)
    record_property("row_groups", len(spans(path)))
    files = CountingFiles(skip_instance_cache=True)
    with duckdb.connect() as connection:
        connection.register_filesystem(files)
        connection.execute("set enable_external_file_cache = false")
        for feature in (0, 29_997, 59_997):
            computed = sum(end - begin for begin, end in spans(path, feature)) + index_bytes(path)
            files.count = 0
            rows = connection.execute(
                f"select * from read_parquet('counted://{path}') where feature = {feature}"
            ).fetchall()
            assert len(rows) == 60
            assert {row[2] for row in rows} == {feature}
            record_property(f"share_by_statistics_{feature}", computed / size)
            record_property(f"share_read_by_duckdb_{feature}", files.count / size)
            assert computed < 0.01 * size
            # Not less than the feature's own row group can hold, or nothing was counted.
            assert index_bytes(path) < files.count < 0.01 * size
