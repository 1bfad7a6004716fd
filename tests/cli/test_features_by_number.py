"""`--features`: features that no concept chose are collected, explained and shown as any other."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import served
from judge_server import JudgeServer
from pipeline.test_pipeline import forbid_work
from study_folder import change_setting, contents, copy_study, with_contexts

from safesail.errors import InputError
from safesail.explorer import Explorer
from safesail.pipeline import Selection, collect, explain, feature_map, landscape, rank
from safesail.study import Study
from safesail.tables import (
    EXPLANATIONS,
    FEATURES,
    read_configuration,
    read_contexts,
    read_table,
    table_from_rows,
    write_table,
)

Run = Callable[..., tuple[int, str, str]]
SAE = "upper"
OTHERS = (61, 4, 5)
"""Features of that SAE that the study's concepts did not choose, and that fire."""
DEAD = 2
CHOSEN = 60
RANKED = ("concept", "f", "f_low", "f_high", "q_value", "called", "separation", "specificity")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        yield running


@pytest.fixture
def study(explained: Path, copy: Callable[[Path], Path]) -> Path:
    return copy(explained)


@pytest.fixture(scope="module")
def numbered(explained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with features of every kind explained by number; not to be changed."""
    folder = copy_study(explained, tmp_path_factory.mktemp("numbered") / "study")
    explain(Study.open(folder), Selection(features=(*OTHERS, DEAD, CHOSEN)))
    return folder


def features(study: Path) -> list[dict[str, Any]]:
    return read_table(study / "features" / f"{SAE}.parquet", FEATURES).to_pylist()


def explanations(study: Path) -> list[dict[str, Any]]:
    return read_table(study / "explanations" / f"{SAE}.parquet", EXPLANATIONS).to_pylist()


def numbers(of: tuple[int, ...]) -> str:
    return ",".join(map(str, of))


def test_a_feature_has_all_but_what_the_ranking_measures(study: Path, run: Run) -> None:
    before, explained = features(study), {row["feature"]: row for row in explanations(study)}
    assert not {row["feature"] for row in before} & {*OTHERS, DEAD}
    wanted = (*OTHERS, DEAD, CHOSEN, CHOSEN)
    code, out, err = run("explain", "--study", study, "--features", numbers(wanted), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["sae"] == SAE
    assert [row["feature"] for row in found["explanations"]] == [*OTHERS, DEAD, CHOSEN]
    # What was there is there as it was; one row more for each other feature.
    after = features(study)
    assert after[: len(before)] == before
    added = {row["feature"]: row for row in after[len(before) :]}
    assert len(after) - len(before) == len(added)
    assert added.keys() == {*OTHERS, DEAD}
    assert {row[name] for row in added.values() for name in RANKED} == {None}
    assert (added[DEAD]["status"], added[DEAD]["fired"], added[DEAD]["q999"]) == ("dead", 0, None)
    rows = {row["feature"]: row for row in explanations(study)}
    assert rows.items() >= explained.items()
    assert [rows[feature]["concepts"] for feature in (*OTHERS, DEAD)] == [[]] * 4
    assert rows[DEAD]["status"] == "dead"
    scored = [rows[feature] for feature in OTHERS if rows[feature]["status"] == "scored"]
    assert scored
    assert all(row["explanation"] and row["observations"] for row in scored)


def test_what_is_kept_is_as_if_a_concept_had_chosen_them(
    numbered: Path, fresh: Path, copy: Callable[[Path], Path]
) -> None:
    other = Study.open(copy(fresh))
    rank(other, Selection(sae=SAE))
    rows = features(other.folder)
    rows += [{**rows[0], "feature": feature, "concept": "fraud"} for feature in OTHERS]
    path = other.features(SAE)
    settings = read_configuration(path)
    assert settings is not None
    write_table(path, table_from_rows(rows, FEATURES), FEATURES, settings)
    (found,) = collect(other, Selection(sae=SAE))
    chosen = {row["feature"]: row for row in found.rows}
    mine = {row["feature"]: row for row in features(numbered) if row["concept"] is None}
    for feature in OTHERS:
        for name in mine[feature].keys() - {*RANKED}:
            # Encoded beside other features, activations differ in the last digits.
            value = chosen[feature][name]
            near = pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            assert mine[feature][name] == near, name
    here, there = (
        {
            feature: [
                (c.document, c.start, c.split, c.kind, c.level, str(c.weight)) for c in windows
            ]
            for feature, windows in read_contexts(folder / "contexts" / SAE, OTHERS).items()
        }
        for folder in (numbered, other.folder)
    )
    assert here == there
    assert here.keys() == {*OTHERS}


def test_nothing_is_done_twice_and_other_commands_go_on_as_before(
    numbered: Path, copy: Callable[[Path], Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = copy(numbered)
    before = contents(study)
    forbid_work(monkeypatch)
    assert run("rank-saes", "--study", study)[0] == 0
    assert run("collect", "--study", study, "--features", numbers(OTHERS))[0] == 0
    assert contents(study) == before
    code, out, _ = run("explain", "--study", study, "--json")
    assert code == 0
    chosen = {row["feature"] for row in features(study) if row["concept"] is not None}
    assert {row["feature"] for row in json.loads(out)["explanations"]} == chosen
    assert {row["feature"] for row in explanations(study)} == {*chosen, *OTHERS, DEAD}
    assert {*OTHERS} <= set(with_contexts(study, SAE))


def test_shards_are_merged(
    explained: Path, numbered: Path, copy: Callable[[Path], Path], run: Run
) -> None:
    study = copy(explained)
    these = ("--study", study, "--features", numbers((*OTHERS, DEAD)))
    for number in (1, 2):
        code, _, err = run("collect", *these, "--shard", f"{number}/2")
        assert code == 0, err
    assert features(study) == features(explained)
    assert run("merge", "--study", study)[0] == 0
    assert features(study) == features(numbered)
    assert with_contexts(study, SAE) == with_contexts(numbered, SAE)
    code, out, _ = run("collect", *these, "--shard", "1/2")
    assert (code, out) == (0, "nothing to do: all these features have contexts\n")


def test_other_settings_discard_them(study: Path, run: Run) -> None:
    these = ("--study", study, "--features", str(OTHERS[1]))
    assert run("collect", *these)[0] == 0
    change_setting(study, "per_level = 2", "per_level = 3")
    code, _, err = run("collect", *these)
    assert code == 1
    assert "per_level" in err
    assert run("collect", "--study", study, "--limit", "1", "--overwrite")[0] == 0
    assert None not in {row["concept"] for row in features(study)}
    assert run("collect", *these)[0] == 0
    assert OTHERS[1] in with_contexts(study, SAE)


def test_a_judge_explains_them_and_may_assign_concepts(
    study: Path, run: Run, server: JudgeServer
) -> None:
    asked = ("--judge-url", server.url, "--judge-model", "m", "--budget", "1e9tokens")
    these = ("--features", numbers((*OTHERS, DEAD, CHOSEN)))
    code, _, err = run("explain", "--study", study, *these, *asked)
    assert code == 0, err
    judged = {row["feature"]: row for row in explanations(study) if row["judge_model"] == "m"}
    assert judged.keys() == {*OTHERS, DEAD, CHOSEN}
    assert judged[CHOSEN]["concepts"]
    scored = [judged[feature] for feature in OTHERS if judged[feature]["status"] == "scored"]
    assert scored
    for row in scored:
        assert (row["concepts"], row["judge_concepts"] is None) == ([], False)
    requests = len(server.requests)
    assert run("explain", "--study", study, *these, *asked)[0] == 0
    assert len(server.requests) == requests


def test_imported_texts_are_scored_once_their_features_are_collected(
    study: Path, run: Run, server: JudgeServer
) -> None:
    layer = features(study)[0]["layer"]
    words = {CHOSEN: "north", OTHERS[1]: "dog"}
    entries = {f"{layer}_{f}": {"explanation": f'active at "{w}"'} for f, w in words.items()}
    path = study / "theirs.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    where = ("--study", study, "--format", "safe-sail", "--sae", SAE)
    assert run("import", path, *where)[0] == 0
    score = ("explain", "--study", study, "--imported", "safe-sail:theirs.json")
    judge = ("--judge-url", server.url, "--judge-model", "m")

    def scored() -> dict[int, list[str]]:
        found = [row for row in explanations(study) if row["source"] and row["judge_model"]]
        return {row["feature"]: row["concepts"] for row in found if row["status"] == "scored"}

    code, _, err = run(*score, *judge)
    assert (code, scored().keys()) == (0, {CHOSEN})
    assert "1 are of features without contexts, which `safesail collect --features` coll" in err
    assert run("collect", "--study", study, "--features", str(OTHERS[1]))[0] == 0
    # Imported again, the row has no concept, and the explorer none either.
    assert run("import", path, *where)[0] == 0
    imported = {row["feature"]: row for row in explanations(study) if row["status"] == "imported"}
    assert imported[OTHERS[1]]["concepts"] == []
    assert run(*score, *judge, "--limit", "1")[0] == 1  # narrowed to another feature
    code, _, err = run(*score, *judge)
    assert (code, scored().keys()) == (0, {CHOSEN, OTHERS[1]}), err
    assert scored()[OTHERS[1]] == []


def test_it_is_shown_exported_and_reported(
    numbered: Path, copy: Callable[[Path], Path], run: Run
) -> None:
    study = copy(numbered)
    code, out, _ = run("show", str(OTHERS[1]), "--study", study)
    assert code == 0
    assert "no concept: collected by its number" in out
    assert "strongest contexts" in out
    for name in ("neuronpedia", "delphi", "safe-sail", "dataset"):
        code, _, err = run("export", "--study", study, "--format", name)
        assert code == 0, err
    card = (study / "exports" / "dataset" / "README.md").read_text(encoding="utf-8")
    texts = {row["feature"] for row in explanations(study) if row["explanation"]}
    count = len(texts & {*OTHERS})
    assert f"separate safety concepts best, but for {count} that no concept chose, and" in card
    assert run("export", "--study", study, "--table", "features", "--sae", SAE)[0] == 0
    code, out, err = run("export", "--study", study, "--table", "features", "--format", "csv")
    assert code == 0, err
    with (study / "exports" / "features.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["feature"] == str(OTHERS[1])]
    assert [(row["concept"], row["separation"], row["called"]) for row in rows] == [("", "", "")]
    assert run("report", "--study", study)[0] == 0
    assert "collected by its number" in (study / "report.html").read_text(encoding="utf-8")
    summary = (study / "summary.md").read_text(encoding="utf-8")
    assert f"| {OTHERS[1]} |  | " in summary


def test_the_explorers_pages_have_it(numbered: Path, copy: Callable[[Path], Path]) -> None:
    opened = Study.open(copy(numbered))
    for server in served(opened):
        pages = [f"/features?sae={SAE}", f"/landscape?sae={SAE}"]
        pages += [f"/feature/{SAE}/{feature}" for feature in (*OTHERS, DEAD)]
        for page in pages:
            answer = httpx.get(f"{server.address}{page}")
            assert answer.status_code == 200, page
        assert "No concept: it was collected by its number." in answer.text
    rows = {row["feature"]: row for row in Explorer(opened).catalog.rows("SELECT * FROM catalog")}
    assert rows[OTHERS[1]]["concepts"] == []
    assert rows[OTHERS[1]]["called"] is False
    assert rows[OTHERS[1]]["separation"] is None
    placed = {row["feature"]: row["concept"] for row in feature_map(opened, SAE)}
    assert placed[OTHERS[1]] is None
    chosen = {row["feature"] for row in features(opened.folder) if row["concept"] == "fraud"}
    counts = [one for one in landscape(opened).counts if one.concept == "fraud"]
    assert [one.chosen for one in counts] == [len(chosen)]


@pytest.mark.parametrize("number", ["-1", "64", "61,999999999999999"])
@pytest.mark.parametrize("command", ["collect", "explain"])
def test_numbers_that_the_sae_lacks(study: Path, run: Run, command: str, number: str) -> None:
    before = contents(study)
    code, out, err = run(command, "--study", study, "--features", number)
    last = number.split(",")[-1]
    told = f"error: SAE 'upper' has no feature {last}: it has 64, from 0 to 63\n"
    assert (code, out, err) == (1, "", told)
    assert contents(study) == before


@pytest.mark.parametrize("more", [("--concept", "fraud"), ("--limit", "3")])
@pytest.mark.parametrize("command", ["collect", "explain"])
def test_either_named_or_chosen(study: Path, run: Run, command: str, more: tuple[str, str]) -> None:
    code, _, err = run(command, "--study", study, "--features", "61", *more)
    assert code == 2
    assert "--features says which features" in err
    kept: Any = {"concepts": ("fraud",)} if more[0] == "--concept" else {"limit": 3}
    with pytest.raises(InputError, match="not chosen by concepts or a limit"):
        Selection(features=(61,), **kept)


@pytest.mark.parametrize("text", ["", "sixty", "1;2", "1,", "1.5", "\uff11"])
def test_what_is_no_number(study: Path, run: Run, text: str) -> None:
    code, _, err = run("collect", "--study", study, "--features", text)
    assert code == 2
    assert "is not a list of numbers" in err


def test_numbers_are_of_one_sae(study: Path, run: Run) -> None:
    for more in (("--sae", "first", "--sae", "upper"), ("--layer", "1", "--layer", "2")):
        code, _, err = run("collect", "--study", study, "--features", "1", *more)
        assert code == 2
        assert "--features are of one SAE" in err
