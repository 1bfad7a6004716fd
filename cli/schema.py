"""`safesail schema`: the result tables as JSON Schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ._options import DebugOption
from ._output import print_json


def schema(
    table: Annotated[
        str | None, typer.Argument(help="Only this table; by default all, by name.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Print the JSON Schema (draft 2020-12) of a row of the result tables.

    It describes the rows of the Parquet files, and the lines of `safesail export --format jsonl`.

    \b
    Examples:
      safesail schema
      safesail schema contexts
    """
    from safesail.errors import InputError
    from safesail.tables import json_schemas

    schemas = json_schemas()
    if table is None:
        print_json(schemas)
    elif table in schemas:
        print_json(schemas[table])
    else:
        raise InputError(f"there is no table {table!r}; there are: {', '.join(schemas)}")
