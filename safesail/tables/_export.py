"""Write a result table in the formats that people open elsewhere."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from safesail.tables._whole import write_bytes

ExportFormat = Literal["parquet", "csv", "jsonl", "markdown"]

_MARKUP = re.compile(r"[\\|`*_\[\]]")

# A spreadsheet runs a cell that begins with one of these as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_table(table: pa.Table, path: Path, format: ExportFormat) -> None:
    """Write `table` to `path`, whole or not at all.

    Lists become JSON in CSV and comma-separated text in Markdown. Text cells that a spreadsheet
    would run as a formula get a leading apostrophe in CSV. NaN becomes null in JSONL and an empty
    cell in CSV and Markdown.

    Raises:
        StorageError: the file cannot be written.
    """
    if format == "parquet":
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue()
    else:
        render = {"csv": _csv, "jsonl": _jsonl, "markdown": _markdown}[format]
        content = render(table.column_names, table.to_pylist()).encode()
    write_bytes(path, content)


def _jsonl(names: list[str], rows: list[dict[str, Any]]) -> str:
    return "".join(
        json.dumps({name: _json_value(row[name]) for name in names}, ensure_ascii=False) + "\n"
        for row in rows
    )


def _csv(names: list[str], rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    # With the default line ending, \r\n, cells that hold either of the two are quoted.
    writer = csv.writer(buffer)
    writer.writerow(names)
    writer.writerows([_csv_cell(row[name]) for name in names] for row in rows)
    return buffer.getvalue()


def _markdown(names: list[str], rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_markdown_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value


def _csv_cell(value: Any) -> str:
    value = _json_value(value)
    if value is None:
        return ""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    text = _without_controls(str(value))
    if isinstance(value, str) and text.startswith(_FORMULA_STARTS):
        return "'" + text
    return text


def _markdown_cell(value: Any) -> str:
    value = _json_value(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return markdown_text(text)


def markdown_text(text: str) -> str:
    """Text that a Markdown table shows as it is, on one line: no markup, links, images or HTML."""
    visible = _without_controls(text)
    return " ".join(_MARKUP.sub(r"\\\g<0>", visible).replace("<", "&lt;").split())


def _without_controls(text: str) -> str:
    """Text without characters that steer a terminal; white space stays."""
    return "".join(c for c in text if c.isprintable() or c.isspace())
