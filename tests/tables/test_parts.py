"""Tables that come in parts: written whole or not at all, in row groups that serve one feature."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.tables import (
    CONTEXTS,
    FEATURES,
    read_configuration,
    read_contexts,
    read_table,
    table_from_rows,
    write_parts,
)
from safesail.tables._row_groups import LEAST_ROWS, row_groups


def contexts(features: list[int], rows: int) -> pa.Table:
    """`rows` contexts of each feature; their starts tell them apart."""
    count = len(features) * rows
    columns = {
        "feature": np.repeat(features, rows),
        "start": np.tile(np.arange(rows), len(features)),
        "tokens": [["a", " b"]] * count,
        "token_ids": [[1, 2]] * count,
        "activations": [[0.0, 1.5]] * count,
        **dict.fromkeys(("sae", "split", "kind", "sample", "document"), ["x"] * count),
        **dict.fromkeys(("layer", "level", "peak_at"), [1] * count),
        **dict.fromkeys(("peak", "weight"), [1.5] * count),
    }
    schema = CONTEXTS.arrow()
    return pa.table([pa.array(columns[n]) for n in schema.names], names=schema.names).cast(schema)


def groups_of(path: Path) -> list[list[int]]:
    """The features of each row group."""
    file = pq.ParquetFile(path)
    return [
        file.read_row_group(number, ["feature"])["feature"].unique().to_pylist()
        for number in range(file.num_row_groups)
    ]


def test_parts_and_batches_are_the_whole(tmp_path: Path) -> None:
    tables = [contexts([number], 3) for number in range(5)]
    parts = [tables[0], tables[1].to_batches()[0], tables[2].slice(0, 0), *tables[2:]]
    path = tmp_path / "new" / "part-00000.parquet"
    write_parts(path, iter(parts), CONTEXTS, {"a": "é"})
    assert read_table(path, CONTEXTS).equals(pa.concat_tables(tables))
    assert read_configuration(path) == {"a": "é"}
    assert os.listdir(path.parent) == [path.name]


def test_no_parts_are_a_table_without_rows(tmp_path: Path) -> None:
    for schema in (CONTEXTS, FEATURES):
        write_parts(tmp_path / "x", iter([]), schema, {})
        assert read_table(tmp_path / "x", schema).num_rows == 0


def test_row_groups_end_at_the_first_feature_after_6144_rows(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_parts(path, (contexts([n], 220) for n in range(60)), CONTEXTS, {})
    # 6,144 / 220 = 27.9 features.
    assert groups_of(path) == [list(range(28)), list(range(28, 56)), list(range(56, 60))]
    write_parts(path, [contexts([1, 2, 3], 7_000), contexts([3, 4], 10)], CONTEXTS, {})
    assert groups_of(path) == [[1], [2], [3], [4]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000)), max_size=4)))
def test_any_cut_into_parts_gives_the_same_groups(cut: list[list[tuple[int, int]]]) -> None:
    """Steps from feature to feature, with rows of each: a feature may go on in the next part."""
    feature, parts = 0, []
    for steps in cut:
        values: list[int] = []
        for step, rows in steps:
            feature += step
            values += [feature] * rows
        parts.append(pa.table({"feature": pa.array(values, pa.int64())}))
    together = [value for part in parts for value in part["feature"].to_pylist()]
    found = [group["feature"].to_pylist() for group in row_groups(parts, "feature")]
    assert [value for group in found for value in group] == together
    for group, after in pairwise(found):
        assert group[-1] < after[0]
        # Full, and no longer so without its last feature.
        assert len(group) >= LEAST_ROWS
        assert group.index(group[-1]) < LEAST_ROWS


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_rows_that_do_not_ascend_are_a_defect_of_the_caller(tmp_path: Path, cut: int) -> None:
    table = contexts([1, 5, 4], 1)
    parts = [table.slice(0, cut), table.slice(cut)]
    with pytest.raises(ValueError, match="ascending order of feature"):
        write_parts(tmp_path / "x", parts, CONTEXTS, {})
    assert os.listdir(tmp_path) == []


def test_other_columns_are_a_defect_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="schema"):
        write_parts(tmp_path / "x", [pa.table({"feature": [1]})], FEATURES, {})
    without = table_from_rows([{"sae": "s"}], CONTEXTS)
    with pytest.raises(ValueError, match="feature is null"):
        write_parts(tmp_path / "x", [without], CONTEXTS, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError("the corpus is gone"), KeyboardInterrupt(), ValueError()]
)
def test_parts_that_fail_leave_what_was_there(tmp_path: Path, error: BaseException) -> None:
    def parts() -> Iterator[pa.Table]:
        yield contexts([1, 2, 3], 3_000)
        raise error

    path = tmp_path / "part-00000.parquet"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        write_parts(path, parts(), CONTEXTS, {})
    # An error of the corpus is not taken for one of the disk.
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


FILL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from safesail.errors import StorageError
from safesail.tables import CONTEXTS, write_parts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
schema, made = CONTEXTS.arrow(), []
def parts():
    for feature in range(1_000):
        made.append(feature)
        noise = np.random.default_rng(feature).random(5_000)
        columns = {"feature": np.full(5_000, feature), "weight": noise}
        yield pa.table(
            [pa.array(columns[f.name]) if f.name in columns else pa.nulls(5_000, f.type)
             for f in schema], schema=schema)
try:
    write_parts(Path(sys.argv[1]), parts(), CONTEXTS, {})
except StorageError as error:
    print(error, len(made), sep="|", end="")
"""


@pytest.mark.parametrize("before", [b"old", None])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "part-00000.parquet"
    if before is not None:
        path.write_bytes(before)
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    message, made = done.stdout.split("|")
    assert message.startswith(f"could not write {path}: ")
    assert "what was there before is intact" in message
    assert "\n" not in message
    assert done.stderr == ""
    # It ended when the disk was full, not when all was made.
    assert int(made) < 10
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([path.name] if before else [])


def test_memory_holds_a_part_and_a_group_however_many_there_are(tmp_path: Path) -> None:
    part = contexts(list(range(20)), 220)
    before, most = pa.total_allocated_bytes(), 0

    def parts() -> Iterator[pa.Table]:
        nonlocal most
        column = part.schema.get_field_index("feature")
        for number in range(60):
            most = max(most, pa.total_allocated_bytes() - before)
            features = pa.array(np.repeat(np.arange(20) + 20 * number, 220))
            # Copies, so that every part takes memory of its own.
            own = part.set_column(column, part.schema.field(column), features)
            yield pa.Table.from_batches(
                pa.ipc.open_stream(_serialized(own)).read_all().to_batches(), part.schema
            )

    write_parts(tmp_path / "part-00000.parquet", parts(), CONTEXTS, {})
    assert len(read_contexts(tmp_path, [0, 1_199])[1_199]) == 220
    assert 0 < most < 6 * part.nbytes


def _serialized(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_the_layout_is_what_the_schema_says(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_parts(path, [contexts([1, 2], 100)], CONTEXTS, {})
    group = pq.read_metadata(path).row_group(0)
    chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
    plain = {name for name, chunk in chunks.items() if not chunk.has_dictionary_page}
    assert plain == {"activations.list.element", "peak"}
    described = {name for name, chunk in chunks.items() if chunk.is_stats_set}
    assert described == {"sae", "layer", "feature"}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
