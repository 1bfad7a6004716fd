"""Result tables: their columns, how they are written and read, and what they export to."""

from safesail.tables._best import explanation_rank, is_legible
from safesail.tables._describe import describe_tables
from safesail.tables._export import export_table, markdown_text
from safesail.tables._files import (
    read_configuration,
    read_table,
    write_parts,
    write_table,
)
from safesail.tables._json_schema import json_schemas
from safesail.tables._records import Context, explained_by, read_contexts, table_from_rows
from safesail.tables._schemas import (
    ANSWERS,
    CONTEXTS,
    CORRECTIONS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    SCHEMAS,
    TRAINING,
    Column,
    TableSchema,
)
from safesail.tables._whole import write_bytes, written_whole

__all__ = [
    "ANSWERS",
    "CONTEXTS",
    "CORRECTIONS",
    "EXPLANATIONS",
    "FEATURES",
    "RANKINGS",
    "SCHEMAS",
    "TRAINING",
    "Column",
    "Context",
    "TableSchema",
    "describe_tables",
    "explained_by",
    "explanation_rank",
    "export_table",
    "is_legible",
    "json_schemas",
    "markdown_text",
    "read_configuration",
    "read_contexts",
    "read_table",
    "table_from_rows",
    "write_bytes",
    "write_parts",
    "write_table",
    "written_whole",
]
