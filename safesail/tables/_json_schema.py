"""The tables as JSON Schema: what a row of `safesail export --format jsonl` is."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from safesail.tables._schemas import SCHEMAS, TableSchema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS = {
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int32(): "integer",
    pa.int64(): "integer",
    pa.float32(): "number",
    pa.float64(): "number",
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (draft 2020-12) of a row of every result table, by the table's name."""
    return {name: _table(schema) for name, schema in SCHEMAS.items()}


def _table(schema: TableSchema) -> dict[str, Any]:
    # Further properties are allowed: columns may be added under the same version.
    return {
        "$schema": _DIALECT,
        "$id": f"urn:safesail:table:{schema.name}:{schema.version}",
        "title": f"safesail {schema.name}, version {schema.version}",
        "description": f"{schema.meaning}; null: not computed, or not a finite number",
        "type": "object",
        "properties": {
            column.name: {
                **_values(column.type, column.nullable),
                "description": column.meaning,
            }
            for column in schema.columns
        },
        "required": [column.name for column in schema.columns],
    }


def _values(type: pa.DataType, nullable: bool) -> dict[str, Any]:
    """What JSON holds for an Arrow type, as `export_table` writes it."""
    if pa.types.is_list(type):
        # Of a list's items only numbers can be undefined.
        undefined = nullable and pa.types.is_floating(type.value_type)
        return {**_type("array", nullable), "items": _values(type.value_type, undefined)}
    if pa.types.is_timestamp(type):
        return {**_type("string", nullable), "format": "date-time"}
    return _type(_SCALARS[type], nullable)


def _type(name: str, nullable: bool) -> dict[str, Any]:
    return {"type": [name, "null"] if nullable else name}
