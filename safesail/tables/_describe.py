"""The tables in words, for the documentation."""

from __future__ import annotations

from safesail.tables._row_groups import LEAST_ROWS
from safesail.tables._schemas import SCHEMAS, TableSchema

_PLACES = {
    "training": "training.parquet",
    "rankings": "rankings.parquet",
    "features": "features/<sae>.parquet",
    "contexts": "contexts/<sae>/part-*.parquet",
    "explanations": "explanations/<sae>.parquet",
    "corrections": "safesail export --table corrections",
    "answers": "evaluation/answers.parquet",
}


def describe_tables() -> str:
    """Markdown with every column of every table: name, type, meaning."""
    lines = [
        "# Result tables",
        "",
        "Made from the schemas by `python -m safesail.tables > docs/tables.md`; a test keeps the "
        "two equal. Columns may be added under the same version, never renamed. Each file's "
        "Parquet metadata holds its schema and version (`safesail_schema`) and the settings that "
        "made it (`safesail_configuration`). What was not computed is null; what is undefined is "
        "NaN. `safesail schema` prints the tables as JSON Schema.",
    ]
    for schema in SCHEMAS.values():
        lines += [
            "",
            f"## {schema.name}, version {schema.version}",
            "",
            f"`{_PLACES[schema.name]}`: {schema.meaning}.{_layout(schema)}",
            "",
            "| column | type | meaning |",
            "| --- | --- | --- |",
            *(f"| `{c.name}` | {c.type} | {c.meaning} |" for c in schema.columns),
        ]
    return "\n".join(lines) + "\n"


def _layout(schema: TableSchema) -> str:
    """How a file is laid out, where that helps whoever reads a part of it."""
    if schema.grouped_by is None:
        return ""
    return (
        f" A file is sorted by `{schema.grouped_by}`, and its row groups end at the first change "
        f"of it after {LEAST_ROWS:,} rows: a query for one value reads the file's index and one "
        "group."
    )
