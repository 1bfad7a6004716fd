"""What a column and a table are, and the columns that several tables share."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type and what a reader needs to know of it.

    Attributes:
        name: its name, for ever.
        type: its Arrow type.
        meaning: what a value says, with its unit.
        nullable: whether a value may be null or NaN; one added under the same version always may,
            for files that were written before lack it.
        repeats: whether values come again, so that a dictionary makes the file smaller.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = True
    repeats: bool = True

    @property
    def path(self) -> str:
        """Its name inside a Parquet file."""
        return f"{self.name}.list.element" if pa.types.is_list(self.type) else self.name


@dataclass(frozen=True)
class TableSchema:
    """A versioned table. Columns may be added under the same version, never renamed.

    Attributes:
        name: its name.
        version: its version.
        meaning: what a row is.
        columns: its columns, in order.
        grouped_by: the column that files are sorted by and read by; their row groups end where it
            changes, so that a reader of one value need not read the rest. None for small tables.
    """

    name: str
    version: int
    meaning: str
    columns: tuple[Column, ...]
    grouped_by: str | None = None

    def arrow(self) -> pa.Schema:
        """The Arrow schema, with each column's meaning as field metadata."""
        return pa.schema(
            [pa.field(c.name, c.type, metadata={"meaning": c.meaning}) for c in self.columns]
        )


STRING, INT, FLOAT = pa.string(), pa.int64(), pa.float64()
STRINGS, INTS, FLOATS = pa.list_(STRING), pa.list_(INT), pa.list_(FLOAT)

SAE = Column("sae", STRING, "name of the candidate SAE", nullable=False)
LAYER = Column(
    "layer",
    INT,
    "block of the language model that the SAE's hook point belongs to",
    nullable=False,
)
FEATURE = Column("feature", INT, "index of the latent in the SAE", nullable=False)
