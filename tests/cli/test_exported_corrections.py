"""What people corrected is in every export, marked as theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from safesail.explorer import Correction, corrections_file, read_corrections
from safesail.pipeline import load_release, load_results
from safesail.study import Study
from safesail.tables import CORRECTIONS, read_table
from safesail.tables.formats import read_delphi, read_neuronpedia, read_safe_sail

Run = Callable[..., tuple[int, str, str]]
READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "neuronpedia": read_neuronpedia,
    "delphi": read_delphi,
    "safe-sail": read_safe_sail,
}


@pytest.fixture
def study(explained: Path, copy: Callable[[Path], Path]) -> Study:
    """A study of which two texts and one label were corrected."""
    own = Study.open(copy(explained))
    first, second = told(own)[:2]

    def correction(row: dict[str, Any], **changes: Any) -> str:
        of = {"author": "Ada", "sae": row["sae"], "feature": row["feature"]}
        fields = {"language": "en", "field": "explanation", "corrected": row["explanation"]}
        made = Correction.model_validate(of | fields | {"explained_by": "lexical"} | changes)
        return made.model_dump_json() + "\n"

    labels: dict[str, Any] = {"field": "concepts", "language": "", "value": ["fraud/scam"]}
    lines = [
        correction(first, value="a first try"),
        correction(first, value="plans of a robbery"),
        correction(second, **labels, corrected=second["concepts"]),
    ]
    corrections_file(own).write_text("".join(lines), encoding="utf-8")
    return own


def told(study: Study) -> list[dict[str, Any]]:
    rows = load_results(study, "explanations").to_pylist()
    return [row for row in rows if row["explanation"]]


@pytest.mark.parametrize("format", [*READERS])
def test_other_tools_get_the_latest_text_as_its_authors(
    study: Study, run: Run, tmp_path: Path, format: str
) -> None:
    first, second, third = told(study)[:3]
    where = ("--study", study.folder, "--output", tmp_path / "out", "--format", format)
    code, _, err = run("export", *where)
    assert code == 0, err
    places = {"neuronpedia": "out/v1/*/*", "safe-sail": "out/*.json", "delphi": "out"}
    (path,) = tmp_path.glob(places[format])
    found: dict[int, list[dict[str, Any]]] = {}
    for row in READERS[format](path):
        found.setdefault(row["feature"], []).append(row)
    texts = [row["explanation"] for row in found[first["feature"]]]
    # Neuronpedia holds several of one feature; the others the best alone.
    kept = [first["explanation"]] if format == "neuronpedia" else []
    assert texts == [*kept, "plans of a robbery"]
    corrected = found[first["feature"]][-1]
    assert corrected.get("correlation") is None
    (of_second,) = found[second["feature"]]
    assert of_second["explanation"] == second["explanation"]
    assert found[third["feature"]][0]["explanation"] == third["explanation"]
    if format == "safe-sail":
        assert of_second["tags"] == ["fraud"]
        return
    assert corrected["explained_by"] == "Ada"
    assert of_second["concepts"] == ["fraud/scam"]
    assert of_second["correlation"] == pytest.approx(second["correlation"])


def test_the_table_says_who_when_and_what_before(study: Study, run: Run) -> None:
    where = ("--study", study.folder, "--table", "corrections", "--format", "jsonl")
    code, _, err = run("export", *where)
    assert code == 0, err
    path = study.folder / "exports" / "corrections.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["value"] for line in lines] == [
        ["a first try"],
        ["plans of a robbery"],
        ["fraud/scam"],
    ]
    assert {line["author"] for line in lines} == {"Ada"}
    assert lines[0]["corrected"] == [told(study)[0]["explanation"]]
    schema = Draft202012Validator(json.loads(run("schema", "corrections")[1]))
    for line in lines:
        schema.validate(line)
    corrections_file(study).unlink()
    code, _, err = run("export", *where)
    assert code == 1
    assert "no corrections in" in err


def test_datasets_and_releases_hold_them_beside_the_originals(
    study: Study, run: Run, tmp_path: Path
) -> None:
    before = told(study)
    dataset = tmp_path / "dataset"
    where = ("--study", study.folder, "--output", dataset)
    assert run("export", *where, "--format", "dataset")[0] == 0
    found = read_table(dataset / "data" / "corrections.parquet", CORRECTIONS).to_pylist()
    assert [row["author"] for row in found] == ["Ada"] * 3
    assert "| corrections | 3 | `data/corrections.parquet` |" in (dataset / "README.md").read_text()
    code, _, err = run("release", tmp_path / "release", "--study", study.folder)
    assert code == 0, err
    release = load_release(tmp_path / "release")
    assert read_corrections(release.study) == read_corrections(study)
    assert [row["explanation"] for row in told(release.study)] == [
        row["explanation"] for row in before
    ]
    card = (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert "- 3 corrections by people: `corrections.jsonl`" in card
