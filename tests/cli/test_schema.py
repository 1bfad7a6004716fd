"""`safesail schema` describes the rows that `safesail export --format jsonl` writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from safesail.tables import (
    CONTEXTS,
    EXPLANATIONS,
    RANKINGS,
    SCHEMAS,
    TRAINING,
    TableSchema,
    export_table,
    table_from_rows,
)

Run = Callable[..., tuple[int, str, str]]
FORMATS = FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def validator(run: Run, table: str) -> Draft202012Validator:
    code, out, _ = run("schema", table)
    assert code == 0
    return Draft202012Validator(json.loads(out), format_checker=FORMATS)


def exported(rows: list[dict[str, Any]], schema: TableSchema, folder: Path) -> list[dict[str, Any]]:
    export_table(table_from_rows(rows, schema), folder / "out.jsonl", "jsonl")
    return [json.loads(line) for line in (folder / "out.jsonl").open(encoding="utf-8")]


def test_all_tables_are_schemas_with_name_and_version(run: Run) -> None:
    code, out, err = run("schema")
    assert (code, err) == (0, "")
    found = json.loads(out)
    stages = ["training", "rankings", "features", "contexts", "explanations"]
    assert list(found) == [*stages, "corrections", "answers"]
    for name, schema in found.items():
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"urn:safesail:table:{name}:1"
        assert schema["title"] == f"safesail {name}, version 1"
        columns = {column.name: column.meaning for column in SCHEMAS[name].columns}
        assert schema["required"] == list(columns)
        assert {k: v["description"] for k, v in schema["properties"].items()} == columns
        assert json.loads(run("schema", name)[1]) == schema


def test_types_are_those_of_exported_rows(run: Run) -> None:
    properties = json.loads(run("schema", "contexts")[1])["properties"]
    del properties["tokens"]["description"], properties["activations"]["description"]
    assert properties["tokens"] == {"type": "array", "items": {"type": "string"}}
    assert properties["activations"] == {"type": "array", "items": {"type": "number"}}
    assert properties["weight"]["type"] == ["number", "null"]
    properties = json.loads(run("schema", "features")[1])["properties"]
    assert properties["histogram_edges"]["items"] == {"type": ["number", "null"]}
    assert properties["called"]["type"] == ["boolean", "null"]
    assert json.loads(run("schema", "answers")[1])["properties"]["cut"]["type"] == "boolean"
    made = json.loads(run("schema", "explanations")[1])["properties"]["created_at"]
    assert (made["type"], made["format"]) == ("string", "date-time")


@pytest.mark.parametrize("table", ["rankings", "features", "contexts", "explanations"])
def test_rows_of_a_study_are_valid(explained: Path, tmp_path: Path, run: Run, table: str) -> None:
    valid, path = validator(run, table), tmp_path / "out.jsonl"
    where = ("--study", explained, "--output", path)
    assert run("export", *where, "--table", table, "--format", "jsonl")[0] == 0
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    assert rows
    for row in rows:
        valid.validate(row)


CONTEXT = {
    **dict.fromkeys(("sae", "split", "kind", "sample", "document"), "x"),
    **dict.fromkeys(("layer", "feature", "level", "start", "peak_at"), 1),
    "tokens": ["猫"],
    "token_ids": [7],
    "activations": [0.5],
    "peak": 0.5,
}
EXPLANATION = {
    **dict.fromkeys(("sae", "language", "explainer", "status"), "x"),
    **dict.fromkeys(("layer", "feature", "observations", "calls"), 1),
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "concepts": ["fraud"],
    "created_at": datetime(2024, 5, 6, tzinfo=UTC),
}
REFUSED = {
    **dict.fromkeys(("sae", "source", "source_fingerprint", "concept", "health"), "x"),
    "warnings": [],
}
TRAINED = {
    **dict.fromkeys(("sae", "hook_point", "architecture"), "x"),
    **dict.fromkeys(("layer", "width", "steps", "batch", "seed", "tokens"), 1),
    "heldout_tokens": 5,
    "fvu": 0.1,
}


def test_what_is_not_a_number_is_valid_as_null(run: Run, tmp_path: Path) -> None:
    rows = [{**CONTEXT, "weight": weight} for weight in (2.0, math.nan, math.inf, None)]
    found = exported(rows, CONTEXTS, tmp_path)
    assert [row["weight"] for row in found] == [2.0, None, None, None]
    for row in found:
        validator(run, "contexts").validate(row)
    # Of a refused candidate little is known, of a lexical explanation no judge.
    for row in exported([REFUSED], RANKINGS, tmp_path):
        validator(run, "rankings").validate(row)
    for row in exported([EXPLANATION], EXPLANATIONS, tmp_path):
        validator(run, "explanations").validate(row)
    for row in exported([TRAINED], TRAINING, tmp_path):
        validator(run, "training").validate(row)
    # A later version may add columns under the same version.
    validator(run, "contexts").validate({**found[0], "added": 1})


def _wrong() -> Iterator[Any]:
    for change in (
        {"feature": "7"},
        {"feature": 7.5},
        {"feature": None},
        {"tokens": "text"},
        {"tokens": [1]},
        {"activations": [0.5, None]},
        {"weight": "NaN"},
        {"split": None},
    ):
        yield pytest.param("contexts", CONTEXTS, CONTEXT, change, id=f"contexts {change}")
    for moment in ("yesterday", "2024-05-06", None, 7):
        change = {"created_at": moment}
        yield pytest.param("explanations", EXPLANATIONS, EXPLANATION, change, id=str(moment))


@pytest.mark.parametrize(("table", "schema", "row", "change"), [*_wrong()])
def test_a_wrong_row_is_not_valid(
    run: Run,
    tmp_path: Path,
    table: str,
    schema: TableSchema,
    row: dict[str, Any],
    change: dict[str, Any],
) -> None:
    (good,) = exported([row], schema, tmp_path)
    valid = validator(run, table)
    valid.validate(good)
    with pytest.raises(ValidationError):
        valid.validate({**good, **change})
    (name,) = change
    with pytest.raises(ValidationError, match="required"):
        valid.validate({key: value for key, value in good.items() if key != name})


def test_an_unknown_table_is_one_line_that_names_the_known(run: Run) -> None:
    code, out, err = run("schema", "context")
    assert (code, out) == (1, "")
    assert err == (
        "error: there is no table 'context'; there are: training, rankings, features, contexts, "
        "explanations, corrections, answers\n"
    )
