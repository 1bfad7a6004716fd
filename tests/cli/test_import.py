"""`safesail import`: foreign explanations stand beside the study's own, and stay there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_rows import row, tables
from study_folder import change_setting, statuses

from safesail.pipeline import Selection, explain, load_results
from safesail.pipeline._lock import held
from safesail.study import Study
from safesail.tables import EXPLANATIONS, read_configuration, read_table
from safesail.tables.formats import write_delphi, write_neuronpedia

Run = Callable[..., tuple[int, str, str]]

# The study's SAEs `first` and `second` read layer 1, `upper` layer 2, with 64 features each.
DATABASE = """{
  "2_3": {"explanation": "threats", "correlation_score": 0.41, "tag_list": ["violence"]},
  "2_5": {"explanation": "***", "correlation_score": 0.2, "tag_list": ["politics"]},
  "2_6": {"explanation": null, "correlation_score": 0.33, "tag_list": []},
  "2_7": {"explanation": "one", "correlation_score": 0.3, "tag_list": []},
  "2_7": {"explanation": "two", "correlation_score": 0.3, "tag_list": []},
  "1_9": {"explanation": "lies", "correlation_score": 0.6, "tag_list": []}
}"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "en_db.json"
    path.write_text(DATABASE)
    return path


def rows_of(study: Path, sae: str) -> list[dict[str, Any]]:
    return read_table(study / "explanations" / f"{sae}.parquet", EXPLANATIONS).to_pylist()


def imported(study: Path, sae: str) -> list[dict[str, Any]]:
    return [row for row in rows_of(study, sae) if row["status"] == "imported"]


def test_a_database_is_imported_counted_and_shown(
    explained: Path, copy: Callable[[Path], Path], database: Path, run: Run
) -> None:
    folder = copy(explained)
    own = rows_of(folder, "upper")
    settings = read_configuration(folder / "explanations/upper.parquet")
    here = ("--study", folder)
    code, out, err = run("import", database, *here, "--format", "safe-sail", "--layer", 2)
    assert code == 0, err
    assert "1 rows of other layers were left out" in out
    assert err == f"written: {folder}/explanations/upper.parquet\n"
    everything = rows_of(folder, "upper")
    assert everything[: len(own)] == own
    assert read_configuration(folder / "explanations/upper.parquet") == settings
    found = {(r["feature"], r["explanation"]): r for r in everything[len(own) :]}
    assert set(found) == {(3, "threats"), (5, "***"), (6, None), (7, "one"), (7, "two")}
    first = found[3, "threats"]
    assert first["explainer"] == first["status"] == "imported"
    assert first["source"] == "safe-sail:en_db.json"
    assert (first["language"], first["correlation"]) == ("en", 0.41)
    assert first["correlation_low"] is None
    assert first["discrimination"] is None
    assert first["tags"] == ["violence"]
    assert [found[k]["masked"] for k in ((5, "***"), (3, "threats"))] == [True, False]
    assert found[7, "two"]["duplicates"] == 1
    code, out, err = run("show", 3, *here)
    assert code == 0, err
    assert "  [safe-sail:en_db.json] threats" in out
    assert "    correlation 0.41, as its file states it" in out
    assert "    tags: violence" in out


def test_counts_are_printed(
    explained: Path, copy: Callable[[Path], Path], database: Path, run: Run
) -> None:
    folder = copy(explained)
    here = ("import", database, "--study", folder, "--format", "safe-sail", "--layer", 2)
    counts = {"rows": 5, "null": 1, "masked": 1, "duplicated": 1}
    for replaced in (0, 5):  # a second import takes the first's place
        code, out, _ = run(*here, "--json")
        assert code == 0
        assert json.loads(out) == {
            "saes": {"upper": counts},
            "replaced": replaced,
            "other_layers": 1,
        }
    assert len(imported(folder, "upper")) == 5
    assert run(*here, "--language", "no tag")[0] == 1
    # Another file, or language, is told apart.
    code, out, _ = run(*here, "--json", "--language", "zh")
    assert json.loads(out)["replaced"] == 0
    assert len(imported(folder, "upper")) == 10
    code, out, _ = run(*here)
    assert code == 0
    assert out.splitlines()[0].split("  ")[0] == "SAE"
    assert [cell for cell in out.splitlines()[2].split() if cell] == ["upper", *"5111"]


def test_files_of_one_name_are_told_apart_by_their_source(
    explained: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    """Neuronpedia's batches are all called alike."""
    folder = copy(explained)
    for number, source in enumerate(("2-first", "2-second"), start=1):
        file = tmp_path / source / "explanations" / "batch-0.jsonl"
        file.parent.mkdir(parents=True)
        record = {"layer": source, "index": str(number), "description": f"text {number}"}
        file.write_text(json.dumps(record) + "\n")
        code, _, err = run(
            "import", file, "--study", folder, "--format", "neuronpedia", "--sae", "upper"
        )
        assert code == 0, err
    assert {(row["source"], row["explanation"]) for row in imported(folder, "upper")} == {
        ("neuronpedia:2-first/batch-0.jsonl", "text 1"),
        ("neuronpedia:2-second/batch-0.jsonl", "text 2"),
    }


def test_a_file_that_holds_nothing_is_said(explained: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    code, _, err = run(
        "import", tmp_path / "empty.jsonl", "--study", explained, "--format", "neuronpedia"
    )
    assert code == 1
    assert "empty.jsonl holds no explanations: is it a file of neuronpedia?" in err


def test_an_import_needs_no_ranking(
    fresh: Path, copy: Callable[[Path], Path], database: Path, run: Run
) -> None:
    folder = copy(fresh)
    where = ("--study", folder, "--format", "safe-sail")
    assert run("import", database, *where, "--layer", 2)[0] == 0
    assert len(imported(folder, "upper")) == 5
    code, out, err = run("show", 3, "--study", folder)
    assert code == 0, err
    assert out.startswith("feature 3 of upper (layer 2, not chosen)\n")
    code, _, err = run("show", 4, "--study", folder)
    assert code == 1
    assert "run `safesail rank-saes` first" in err


def test_explaining_keeps_what_was_imported(
    fresh: Path, copy: Callable[[Path], Path], database: Path, run: Run
) -> None:
    folder = copy(fresh)
    assert run("import", database, "--study", folder, "--format", "safe-sail", "--layer", 2)[0] == 0
    before = imported(folder, "upper")
    chosen = Selection(sae="upper", limit=2)
    explain(Study.open(folder), chosen)
    assert imported(folder, "upper") == before
    assert {r["explainer"] for r in rows_of(folder, "upper")} == {"imported", "lexical"}
    change_setting(folder, "per_level = 2", "per_level = 3")
    explain(Study.open(folder), chosen, overwrite=True)
    assert imported(folder, "upper") == before
    lexical = [r for r in rows_of(folder, "upper") if r["explainer"] == "lexical"]
    assert len(lexical) == 2
    # And chosen features say for which concepts.
    feature = next(iter(statuses(folder, "upper")))
    database.write_text(json.dumps({f"2_{feature}": {"explanation": "x"}}))
    assert run("import", database, "--study", folder, "--format", "safe-sail")[0] == 0
    (found,) = imported(folder, "upper")
    features = load_results(Study.open(folder), "features", "upper").to_pylist()
    assert set(found["concepts"]) == {r["concept"] for r in features if r["feature"] == feature}


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ((), "several SAEs read layer 1, which {path} explains: first, second; name one with"),
        (("--sae", "none"), "no SAE 'none' in this study; there are first, second, upper"),
        (("--layer", 7), "{path} has no explanations of layer 7: it has layers 1, 2"),
        (("--format", "delphi"), "{path}: holds no explanations/"),
        (("--format", "neuronpedia"), "{path}, line 1: not JSON"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    fresh: Path,
    copy: Callable[[Path], Path],
    database: Path,
    run: Run,
    options: tuple[str, ...],
    wrong: str,
) -> None:
    folder = copy(fresh)
    given = options if "--format" in options else ("--format", "safe-sail", *options)
    code, out, err = run("import", database, "--study", folder, *given)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert wrong.format(path=database) in err
    assert not (folder / "explanations").exists()


def test_other_saes_explanations_are_noticed(
    fresh: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    folder = copy(fresh)
    path = tmp_path / "db.json"
    for content, wrong in (
        ({"2_64": {}}, "explains feature 64, SAE upper has 64: it is another SAE's"),
        ({"7_1": {}}, "no SAE of this study reads layer 7, which"),
        ({"7_1": {}, "2_1": {}}, "choose one of layers 1, 2 with --layer"),
    ):
        path.write_text(json.dumps(content))
        code, _, err = run("import", path, "--study", folder, "--format", "safe-sail")
        assert code == 1
        assert wrong in err
    assert not (folder / "explanations").exists()


def test_sources_without_a_layer_need_the_sae(
    fresh: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    folder = copy(fresh)
    (tmp_path / "explanations").mkdir()
    (tmp_path / "explanations/embedding_latent3.txt").write_text('"words"')
    command = ("import", tmp_path / "explanations", "--study", folder, "--format", "delphi")
    code, _, err = run(*command)
    assert code == 1
    assert "does not say its layer: name the SAE with --sae" in err
    assert run(*command, "--sae", "second", "--language", "de")[0] == 0
    (found,) = imported(folder, "second")
    assert (found["layer"], found["language"]) == (1, "de")
    assert found["source"] == f"delphi:{tmp_path.name}"


def test_nobody_else_writes_the_same_table(
    explained: Path, copy: Callable[[Path], Path], database: Path, run: Run
) -> None:
    folder = copy(explained)
    command = ("import", database, "--study", folder, "--format", "safe-sail", "--layer", 2)
    before = rows_of(folder, "upper")
    with held(folder / "contexts/upper", wait=False):
        code, _, err = run(*command)
    assert code == 1
    assert "another process explains features of upper" in err
    assert rows_of(folder, "upper") == before


@pytest.mark.parametrize("format", ["neuronpedia", "delphi", "safe-sail"])
def test_a_studys_export_comes_back(
    explained: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run, format: str
) -> None:
    """By the commands: what is exported of one study is imported into another."""
    folder = copy(explained)
    assert run("export", "--study", explained, "--format", format, "-o", tmp_path / "out")[0] == 0
    own = [r for r in rows_of(folder, "upper") if r["explanation"] is not None]
    shutil.rmtree(folder / "explanations")
    path = tmp_path / ("out/neuron_db_en.json" if format == "safe-sail" else "out")
    code, _, err = run("import", path, "--study", folder, "--format", format)
    assert code == 0, err
    found = {r["feature"]: r for r in imported(folder, "upper")}
    assert set(found) == {r["feature"] for r in own}
    names = ["layer", "language", "explanation", "concepts", "correlation"]
    if format != "safe-sail":
        names += ["correlation_low", "correlation_high", "discrimination", "observations"]
        names += ["discrimination_low", "discrimination_high", "mixture", "item_format"]
    for before in own:
        for name in names:
            value = before[name] if before[name] == before[name] else None  # NaN is null
            assert found[before["feature"]][name] == value, name


def test_imported_rows_are_exported_again(
    fresh: Path, copy: Callable[[Path], Path], tmp_path: Path, run: Run
) -> None:
    folder = copy(fresh)
    scores = '[{"details": "", "model": null, "type": "fuzz", "value": 0.5}]'
    made = row(sae="upper", layer=2, explainer="imported", status="imported", tags=["x"])
    made |= {"imported_scores": scores, "source": "delphi:run", "judge_model": None}
    sae = tables([made], sae="upper")
    write_neuronpedia([sae], tmp_path / "neuronpedia", model="tiny")
    write_delphi([sae], tmp_path / "delphi")
    for format in ("neuronpedia", "delphi"):
        where = ("--study", folder, "--format", format)
        assert run("import", tmp_path / format, *where)[0] == 0
        again = tmp_path / f"{format}-again"
        assert run("export", *where, "--output", again)[0] == 0
        assert run("import", again, *where, "--language", "de")[0] == 0
        for found in imported(folder, "upper"):
            assert (found["explanation"], found["tags"]) == ("lies", ["x"])
            assert found["imported_scores"] == scores
        shutil.rmtree(folder / "explanations")
