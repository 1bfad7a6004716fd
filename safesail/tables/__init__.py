"""Result tables: their columns, how they are written and read, and what they export to."""

from safesail.tables._describe import describe_tables
from safesail.tables._export import export_table, markdown_text
from safesail.tables._files import (
    read_configuration,
    read_table,
    write_bytes,
    write_table,
)
from safesail.tables._records import Context, read_contexts, table_from_rows
from safesail.tables._schemas import (
    CONTEXTS,
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    TRAINING,
    Column,
    TableSchema,
)

__all__ = [
    "CONTEXTS",
    "EXPLANATIONS",
    "FEATURES",
    "RANKINGS",
    "TRAINING",
    "Column",
    "Context",
    "TableSchema",
    "describe_tables",
    "export_table",
    "markdown_text",
    "read_configuration",
    "read_contexts",
    "read_table",
    "table_from_rows",
    "write_bytes",
    "write_table",
]
