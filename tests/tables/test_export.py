"""Exports parse back in the tools that people open them with."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.errors import StorageError
from safesail.tables import export_table, markdown_text

NASTY = [
    'a "quoted", text; with | pipe',
    "line\nfeed",
    "carriage\rreturn",
    "both\r\nof them",
    "猫 🙂 \u2028 separator",
    "back\\slash \\| <b>bold</b> `code` [link](javascript:x)",
    "",
]
MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def table(texts: list[str]) -> pa.Table:
    count = len(texts)
    return pa.table(
        {
            "text": texts,
            "number": pa.array([-1.5] * count),
            "count": pa.array(range(count), pa.int64()),
            "words": [[text, "x"] for text in texts],
            "flag": [True] * count,
            "made": pa.array([MOMENT] * count, pa.timestamp("s", tz="UTC")),
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_csv_parses_back(path: Path) -> None:
    export_table(table(NASTY), path, "csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == NASTY
    assert [json.loads(row["words"]) for row in rows] == [[text, "x"] for text in NASTY]
    assert {row["number"] for row in rows} == {"-1.5"}
    assert {datetime.fromisoformat(row["made"]) for row in rows} == {MOMENT}


def test_csv_parses_back_with_pandas_and_duckdb(path: Path) -> None:
    export_table(table(NASTY), path, "csv")
    read = pd.read_csv(path, keep_default_na=False)
    assert read["text"].tolist() == NASTY
    assert read["number"].tolist() == [-1.5] * len(NASTY)
    found = duckdb.sql(f"select text, number, flag from read_csv('{path}', header=true)").fetchall()
    assert [text or "" for text, _, _ in found] == NASTY
    assert {row[1:] for row in found} == {(-1.5, True)}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_cells_that_a_spreadsheet_would_run_are_defused(path: Path, start: str) -> None:
    texts = [f'{start}HYPERLINK("http://x")', f"text {start} in the middle"]
    export_table(table(texts), path, "csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ["'" + texts[0], texts[1]]
    assert all(row["words"].startswith("[") for row in rows)
    assert all(row["number"] == "-1.5" for row in rows)


def test_jsonl_parses_back(path: Path) -> None:
    export_table(table(NASTY), path, "jsonl")
    lines = path.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line, parse_constant=_no_constant) for line in lines]
    assert [row["text"] for row in rows] == NASTY
    assert [row["words"] for row in rows] == [[text, "x"] for text in NASTY]
    assert {row["made"] for row in rows} == {MOMENT.isoformat()}
    read = pd.read_json(path, lines=True)
    assert read["count"].tolist() == list(range(len(NASTY)))
    found = duckdb.sql(f"select text from read_json('{path}', format='newline_delimited')")
    assert [text for (text,) in found.fetchall()] == NASTY


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def test_what_is_not_a_number_is_null(path: Path) -> None:
    values = pa.table(
        {
            "x": [math.nan, math.inf, -math.inf, None, 0.1],
            "of": [[math.nan], [1.0], [], None, [math.inf, 2.0]],
        }
    )
    export_table(values, path, "jsonl")
    rows = [json.loads(line, parse_constant=_no_constant) for line in path.open()]
    assert [row["x"] for row in rows] == [None, None, None, None, 0.1]
    assert [row["of"] for row in rows] == [[None], [1.0], [], None, [None, 2.0]]
    export_table(values, path, "csv")
    with path.open(newline="") as file:
        assert [row["x"] for row in csv.DictReader(file)] == ["", "", "", "", "0.1"]
    export_table(values, path, "markdown")
    cells = [line.split("|")[1].strip() for line in path.read_text().splitlines()[2:]]
    assert cells == ["", "", "", "", "0.100"]


def test_parquet_keeps_types_and_values(path: Path) -> None:
    export_table(table(NASTY), path, "parquet")
    read = pq.read_table(path)
    assert read.to_pylist() == table(NASTY).to_pylist()
    assert read.schema.field("count").type == pa.int64()
    assert pa.types.is_timestamp(read.schema.field("made").type)
    assert duckdb.sql(f"select words[1] from read_parquet('{path}')").fetchall() == [
        (text,) for text in NASTY
    ]


def test_markdown_cells_cannot_break_the_table(path: Path) -> None:
    export_table(table(NASTY), path, "markdown")
    lines = path.read_bytes().decode().split("\n")
    assert len(lines) == 2 + len(NASTY) + 1
    for line in lines[:-1]:
        # A bar divides cells unless an odd number of backslashes stands before it.
        bars = [at for at, sign in enumerate(line) if sign == "|"]
        dividing = [at for at in bars if (at - len(line[:at].rstrip("\\"))) % 2 == 0]
        assert len(dividing) == 7, line
    assert not any(sign in path.read_text() for sign in ("<b>", "\u2028", "\r"))


def test_markdown_shows_markup_as_text() -> None:
    assert markdown_text("![x](http://e/p.png)") == r"!\[x\](http://e/p.png)"
    assert markdown_text("a_b *c*\n`d` \\ <i>") == r"a\_b \*c\* \`d\` \\ &lt;i>"


def test_exports_are_written_whole_or_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="could not write"):
        export_table(table(NASTY), tmp_path / "folder", "csv")
