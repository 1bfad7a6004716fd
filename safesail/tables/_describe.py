"""The tables in words, for the documentation."""

from __future__ import annotations

from safesail.tables._schemas import CONTEXTS, EXPLANATIONS, FEATURES, RANKINGS, TRAINING

_PLACES = {
    "training": "training.parquet",
    "rankings": "rankings.parquet",
    "features": "features/<sae>.parquet",
    "contexts": "contexts/<sae>/part-*.parquet",
    "explanations": "explanations/<sae>.parquet",
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
        "NaN.",
    ]
    for schema in (TRAINING, RANKINGS, FEATURES, CONTEXTS, EXPLANATIONS):
        lines += [
            "",
            f"## {schema.name}, version {schema.version}",
            "",
            f"`{_PLACES[schema.name]}`: {schema.meaning}.",
            "",
            "| column | type | meaning |",
            "| --- | --- | --- |",
            *(f"| `{c.name}` | {c.type} | {c.meaning} |" for c in schema.columns),
        ]
    return "\n".join(lines) + "\n"
