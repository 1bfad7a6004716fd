"""Tables are written whole or not at all, and read back with what made them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.errors import StorageError
from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    Column,
    TableSchema,
    read_configuration,
    read_contexts,
    read_table,
    table_from_rows,
    write_bytes,
    write_table,
)

ROWS = [
    {"sae": "s", "layer": 3, "feature": 7, "concept": "x", "f": 0.25, "top_logits": ["a", "猫"]},
    {"sae": "s", "layer": 3, "feature": 9, "called": True, "histogram_counts": []},
]
CONFIGURATION = {"ranking.margin": 0.5, "model": "é", "nested": [1, None]}


def features_file(path: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    table = table_from_rows(ROWS if rows is None else rows, FEATURES)
    write_table(path, table, FEATURES, CONFIGURATION)
    return path


def test_round_trip_with_configuration(tmp_path: Path) -> None:
    path = features_file(tmp_path / "new" / "folder" / "s.parquet")
    table = read_table(path, FEATURES)
    assert table.column_names == [column.name for column in FEATURES.columns]
    for row, expected in zip(table.to_pylist(), ROWS, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == expected
    assert read_configuration(path) == CONFIGURATION
    assert os.listdir(path.parent) == ["s.parquet"]


def test_no_rows_round_trip(tmp_path: Path) -> None:
    path = features_file(tmp_path / "s.parquet", [])
    assert read_table(path, FEATURES).num_rows == 0
    assert read_table(path, FEATURES).schema.field("f").type == pa.float64()


def test_other_tools_see_the_meaning_of_a_column(tmp_path: Path) -> None:
    schema = pq.read_schema(features_file(tmp_path / "s.parquet"))
    assert b"Wilson" in schema.field("f_low").metadata[b"meaning"]


@pytest.mark.parametrize("schema", [RANKINGS, FEATURES, CONTEXTS, EXPLANATIONS])
def test_every_column_is_named_once_and_explained(schema: TableSchema) -> None:
    names = [column.name for column in schema.columns]
    assert len(set(names)) == len(names)
    assert all(column.meaning for column in schema.columns)


def test_files_are_as_readable_as_the_user_wants(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


HALF_WRITTEN = """
import sys
from pathlib import Path
from safesail.tables import written_whole
with written_whole(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "result.parquet"
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WRITTEN, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as half:
        assert half.stdout
        assert half.stdout.readline() == b"written\n"
        (temporary,) = tmp_path.iterdir()
        write_bytes(path, b"first")
        assert set(tmp_path.iterdir()) == {path, temporary}
        half.kill()
    write_bytes(tmp_path / "another", b"")
    assert temporary.exists()
    write_bytes(path, b"second")
    assert set(tmp_path.iterdir()) == {path, tmp_path / "another"}
    assert path.read_bytes() == b"second"


FILL_DISK = """
import resource, signal, sys
from pathlib import Path
from safesail.errors import StorageError
from safesail.tables import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(Path(sys.argv[1]), b"n" * 1_000_000)
except StorageError as error:
    print(error, end="")
"""


@pytest.mark.parametrize("before", [b"old", None])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "result.parquet"
    if before is not None:
        path.write_bytes(before)
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"could not write {path}: ")
    assert "\n" not in done.stdout
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([path.name] if before else [])


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from safesail.tables import write_bytes
for number in range(10**9):
    write_bytes(Path(sys.argv[1]), str(number % 10).encode() * 3_000_000)
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "result.parquet"
    for writes in (1, 2, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(writes):
            process.stdout.readline()
        # The next write is under way, or will be before the signal arrives.
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match=r"could not write .*x: .*intact") as caught:
        write_bytes(tmp_path / "x", b"1")
    assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not write"):
        write_bytes(tmp_path / "file" / "x", b"1")
    assert sorted(os.listdir(tmp_path)) == ["file", "x"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_table_is_named(tmp_path: Path, share: float) -> None:
    path = features_file(tmp_path / "s.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in (lambda: read_table(path, FEATURES), lambda: read_configuration(path)):
        with pytest.raises(StorageError, match=r"cannot read .*s\.parquet: .*delete it"):
            read()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*none\.parquet"):
        read_table(tmp_path / "none.parquet", FEATURES)
    assert read_configuration(tmp_path / "none.parquet") is None


def test_another_version_or_table_is_refused(tmp_path: Path) -> None:
    path = features_file(tmp_path / "s.parquet")
    with pytest.raises(StorageError, match=r"holds schema features/1, .* reads contexts/1"):
        read_table(path, CONTEXTS)
    later = TableSchema("features", 2, "", FEATURES.columns)
    with pytest.raises(StorageError, match=r"features/1, .* reads features/2"):
        read_table(path, later)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(StorageError, match="holds schema none"):
        read_table(tmp_path / "foreign.parquet", FEATURES)


def test_added_columns_disturb_neither_side(tmp_path: Path) -> None:
    shorter = TableSchema("features", 1, "", FEATURES.columns[:-1])
    longer = TableSchema(
        "features", 1, "", (*FEATURES.columns, Column("extra", pa.int64(), "added later"))
    )
    names = [column.name for column in FEATURES.columns]
    for schema in (shorter, longer):
        path = tmp_path / "s.parquet"
        write_table(path, table_from_rows(ROWS, schema), schema, {})
        table = read_table(path, FEATURES)
        assert table.column_names == names
        assert table["feature"].to_pylist() == [7, 9]
        assert table["status"].to_pylist() == [None, None]


def test_contexts_come_from_all_shards(tmp_path: Path) -> None:
    def row(feature: int, start: int) -> dict[str, Any]:
        lists = {"tokens": ["a", " b"], "token_ids": [1, 2], "activations": [0.0, 1.5]}
        kind = {"split": "score", "kind": "active", "level": 4, "sample": "random"}
        place = {"sae": "s", "layer": 1, "feature": feature, "document": "d", "start": start}
        return {**lists, **kind, **place, "peak": 1.5, "peak_at": 1, "weight": 2.0}

    for number, rows in enumerate([[row(1, 0), row(2, 0)], [row(1, 32)]]):
        path = tmp_path / f"part-{number:05d}.parquet"
        write_table(path, table_from_rows(rows, CONTEXTS), CONTEXTS, {})
    found = read_contexts(tmp_path)
    assert {feature: [c.start for c in of] for feature, of in found.items()} == {1: [0, 32], 2: [0]}
    assert vars(found[1][1]) == row(1, 32)
    assert list(read_contexts(tmp_path, [2, 5])) == [2]
    assert read_contexts(tmp_path / "none") == {}
