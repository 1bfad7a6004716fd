"""Ids of documents: from a column, or from the file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.corpus import Corpus
from safesail.errors import InputError
from safesail.study import CorpusSource

ROWS = [{"id": 7, "text": "one"}, {"id": 7, "text": "two"}, {"id": "x y", "text": "three"}]


def ids(folder: Path, name: str) -> list[str]:
    return [d.id for d in Corpus([CorpusSource(path=name, id_column="id")], folder)]


def jsonl(folder: Path, rows: list[Any]) -> None:
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_ids_come_from_their_column_and_may_repeat(tmp_path: Path) -> None:
    jsonl(tmp_path, ROWS)
    assert ids(tmp_path, "d.jsonl") == ["7", "7", "x y"]
    (tmp_path / "d.csv").write_text("id,text\n7,one\n7,two\nx y,three\n")
    assert ids(tmp_path, "d.csv") == ["7", "7", "x y"]
    columns = {"text": ["one", "two"], "id": [2**62, 5], "other": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    assert ids(tmp_path, "d.parquet") == [str(2**62), "5"]


@pytest.mark.parametrize("missing", [None, "", " "])
def test_a_row_without_id_is_named(tmp_path: Path, missing: str | None) -> None:
    jsonl(tmp_path, [*ROWS, {"id": missing, "text": "four"}])
    with pytest.raises(InputError, match=r"d\.jsonl, row 4: no id in 'id': give every row one"):
        ids(tmp_path, "d.jsonl")


def test_a_row_without_text_needs_no_id(tmp_path: Path) -> None:
    jsonl(tmp_path, [*ROWS, {"text": " "}, {"id": None, "text": None}])
    assert len(ids(tmp_path, "d.jsonl")) == 3


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    jsonl(tmp_path, [*ROWS, {"text": "four"}])
    with pytest.raises(InputError, match=r"row 4: no column 'id'; there are text: set id_column"):
        ids(tmp_path, "d.jsonl")
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match=r"d\.parquet: no column 'id'; there are text: set .*id_c"):
        ids(tmp_path, "d.parquet")
    (tmp_path / "d.txt").write_text("one")
    with pytest.raises(InputError, match="no column 'id'"):
        ids(tmp_path, "d.txt")
