"""Commands as users run them: what they print, how they end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from study_folder import change_setting, contents

from safesail.pipeline import load_results
from safesail.study import Study

Copy = Callable[[Path], Path]
Run = Callable[..., tuple[int, str, str]]


def test_the_main_job(fresh: Path, copy: Copy, run: Run) -> None:
    """Rank, collect, explain, show and export, each by its command."""
    folder = copy(fresh)
    code, out, err = run("rank-saes", "--study", folder)
    assert code == 0, err
    assert out.startswith("Candidates, best first, over 2 concepts:")
    for name in ("first", "second", "upper"):
        assert name in out
    assert "rankings.parquet" in err
    code, out, err = run("collect", "--study", folder, "--limit", 3)
    assert code == 0, err
    best = out.split(":")[0]
    assert "3 features" in out
    code, out, err = run("explain", "--study", folder, "--limit", 4)
    assert code == 0, err
    assert f"{best}: 4 features" in out
    assert "explained by: lexical" in out
    rows = load_results(Study.open(folder), "explanations").to_pylist()
    scored = next(row for row in rows if row["status"] == "scored")
    code, out, err = run("show", scored["feature"], "--study", folder)
    assert code == 0, err
    assert out.startswith(f"feature {scored['feature']} of {best}")
    assert scored["explanation"] in out
    for title in ("strongest contexts", "one drawn from each level", "silent"):
        assert f"  {title}:" in out
    code, _, err = run("export", "--study", folder, "--format", "csv")
    assert code == 0
    assert err == f"written: {folder}/exports/explanations.csv (4 rows)\n"
    with (folder / "exports" / "explanations.csv").open(newline="") as file:
        assert [r["feature"] for r in csv.DictReader(file)] == [str(r["feature"]) for r in rows]


@pytest.mark.parametrize("table", ["explanations", "features", "contexts", "rankings"])
def test_every_table_exports_in_every_format(
    explained: Path, tmp_path: Path, run: Run, table: str
) -> None:
    rows = load_results(Study.open(explained), table).num_rows  # type: ignore[arg-type]
    for format in ("parquet", "csv", "jsonl", "markdown"):
        path = tmp_path / f"out.{format}"
        where = ("--study", explained, "--output", path)
        code, _, err = run("export", *where, "--table", table, "--format", format)
        assert (code, f"({rows:,} rows)" in err) == (0, True)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == rows
    assert len((tmp_path / "out.markdown").read_text().splitlines()) == rows + 2


def test_json_parses_and_holds_what_the_tables_hold(explained: Path, run: Run) -> None:
    _, out, _ = run("rank-saes", "--study", explained, "--json")
    ranking = json.loads(out)
    names = {"first", "second", "upper"}
    assert {row["sae"] for row in ranking["rows"]} == names
    table = load_results(Study.open(explained), "rankings").to_pylist()
    ranks = {row["sae"]: row["mean_rank"] for row in table}
    order = [ranks[line["sae"]] for line in ranking["candidates"]]
    assert order == sorted(order)
    assert len(order) == len(names)
    for by_series in ranking["picture"].values():
        points = [point for series in by_series.values() for point in series]
        assert {point["sae"] for point in points} == names
        assert all({"l0", "fvu", "i_cdf_low", "separation_best"} <= set(p) for p in points)
    _, out, _ = run("collect", "--study", explained, "--limit", 2, "--json")
    (collected,) = json.loads(out)
    assert len({row["feature"] for row in collected["features"]}) == 2
    _, out, _ = run("explain", "--study", explained, "--json")
    found = json.loads(out)
    table = load_results(Study.open(explained), "explanations").to_pylist()
    by_feature = {row["feature"]: row for row in table}
    assert {row["feature"] for row in found["explanations"]} == set(by_feature)
    for row in found["explanations"]:
        assert row["explanation"] == by_feature[row["feature"]]["explanation"]
    feature = found["explanations"][0]["feature"]
    _, out, _ = run("show", feature, "--study", explained, "--json")
    shown = json.loads(out)
    assert {row["feature"] for row in shown["contexts"]} == {feature}
    assert all(len(row["tokens"]) == len(row["activations"]) for row in shown["contexts"])
    code, out, _ = run("doctor", "--study", explained, "--json")
    checks = {check["subject"]: check for check in json.loads(out)}
    assert code == 0
    assert checks["candidates"]["finding"] == "3 local SAEs load and fit the model"
    assert {check["outcome"] for check in checks.values()} <= {"ok", "warning"}


def test_several_layers_are_collected_together(fresh: Path, copy: Copy, run: Run) -> None:
    folder = copy(fresh)
    layers = ("--layer", 2, "--layer", 1, "--limit", 2)
    code, out, err = run("collect", "--study", folder, *layers, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(one["sae"], one["layer"]) for one in found] == [("upper", 2), (found[1]["sae"], 1)]
    assert all(len({row["feature"] for row in one["features"]}) == 2 for one in found)
    code, out, _ = run("collect", "--study", folder, *layers)
    assert code == 0
    assert out.count(": 2 features (") == 2
    saes = ("--sae", "first", "--sae", "second", "--limit", 2, "--json")
    code, out, _ = run("collect", "--study", folder, *saes)
    assert [one["sae"] for one in json.loads(out)] == ["first", "second"]


def test_shards_and_merge(fresh: Path, copy: Copy, run: Run) -> None:
    folder = copy(fresh)
    change_setting(folder, "hard_silent = 8\n", "hard_silent = 8\nchunk_characters = 5000\n")
    asked = ("--study", folder, "--limit", 2)
    assert run("rank-saes", "--study", folder)[0] == 0
    code, out, err = run("collect", *asked, "--shard", "2/2")
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["shard-2-of-2.work"]
    assert Path(out.strip()).exists()
    assert f"when all 2 are done: safesail merge --study {folder}" in err
    code, out, err = run("merge", "--study", folder)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "lacks shard 1 of 2: run `safesail collect --shard 1/2`" in err
    assert run("collect", *asked, "--shard", "1/2")[0] == 0
    code, out, err = run("merge", "--study", folder, "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    assert len({row["feature"] for row in found["features"]}) == 2
    assert not (folder / "collection").exists()
    code, out, _ = run("collect", *asked, "--shard", "1/2")
    assert (code, out) == (0, "nothing to do: all these features have contexts\n")
    code, out, _ = run("merge", "--study", folder)
    assert (code, out) == (0, "nothing to merge: all that was collected has its contexts\n")
    assert run("merge", "--study", folder, "--json")[:2] == (0, "[]\n")


@pytest.mark.parametrize(
    "shard",
    [
        *("0/3", "4/3", "1/0", "x", "1/3/5", "-1/3", "1.5/3", "\u0661/\u0663"),
        *("1/1000001", "1/99999999999999999999999"),
        pytest.param("1/" + "9" * 5000, id="more digits than Python reads"),
    ],
)
def test_a_shard_that_there_cannot_be_is_wrong_usage(fresh: Path, run: Run, shard: str) -> None:
    code, out, err = run("collect", "--study", fresh, "--shard", shard)
    assert (code, out) == (2, "")
    assert "is not i/n with 1 <= i <= n" in " ".join(err.split())


def test_explain_takes_the_best_of_the_layer(fresh: Path, copy: Copy, run: Run) -> None:
    folder = copy(fresh)
    code, out, _ = run("explain", "--study", folder, "--layer", 2, "--limit", 2, "--json")
    assert code == 0
    assert (json.loads(out)["sae"], json.loads(out)["layer"]) == ("upper", 2)
    assert sorted(path.name for path in (folder / "features").iterdir()) == ["upper.parquet"]


def test_a_changed_setting_ends_with_one_line(explained: Path, copy: Copy, run: Run) -> None:
    folder = copy(explained)
    change_setting(folder, "margin = 0.25", "margin = 0.75")
    code, out, err = run("rank-saes", "--study", folder)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "ranking.margin was 0.25, is 0.75" in err
    code, out, _ = run("rank-saes", "--study", folder, "--overwrite")
    assert (code, bool(out)) == (0, True)


def test_errors_are_one_line_and_debug_shows_the_trace(tmp_path: Path, run: Run) -> None:
    code, out, err = run("rank-saes", "--study", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: no safesail.toml in {tmp_path}")
    code, _, err = run("rank-saes", "--study", tmp_path, "--debug")
    assert code == 1
    assert "Traceback" in err
    assert "ConfigurationError" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in run("rank-saes", "--study", tmp_path)[2]


def test_an_error_cannot_speak_to_the_terminal(tmp_path: Path, run: Run) -> None:
    (tmp_path / "safesail.toml").write_text('"\\u001b[31mred" = 1', encoding="utf-8")
    _, _, err = run("rank-saes", "--study", tmp_path)
    assert "red" in err
    assert "\x1b[31mred" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["rank-saes", "--nonsense"],
        ["explain", "--limit", "0"],
        ["explain", "--layer", "-1"],
        ["export", "--format", "docx"],
        ["show"],
        ["show", "seven"],
        ["collect", "--sae", "first", "--layer", "1", "--layer", "2"],
    ],
)
def test_wrong_usage_exits_2(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["explain", "--layer", "9"],
            "no candidate of this study has layer 9; they are at layers: ",
        ),
        (
            ["rank-saes", "--layer", "9"],
            "no candidate of this study has layer 9; they are at layers: ",
        ),
        (["explain", "--concept", "theft"], "concept 'theft' has no pairs"),
        (["explain", "--sae", "none"], "no candidate 'none' in this study; there are first"),
        (["collect", "--shard", "1/3"], "has no ranking, which every shard needs: run `safesail"),
        (["merge"], "no shards in "),
        (["show", "3"], "no features in "),
        (["export"], "run `safesail explain` first"),
        (["explain", "--judge-model", "j", "--judge-url", "ftp://x"], "URL must look like"),
        (["explain", "--judge-model", "j"], "set the environment variable OPENAI_API_KEY"),
    ],
)
def test_what_cannot_be_done_exits_1(
    fresh: Path, copy: Copy, run: Run, arguments: list[str], message: str
) -> None:
    code, _, err = run(*arguments, "--study", copy(fresh))
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


def test_a_refused_candidate_is_said(fresh: Path, copy: Copy, run: Run) -> None:
    folder = copy(fresh)
    configuration = folder / "saes" / "second" / "cfg.json"
    text = configuration.read_text()
    configuration.write_text(text.replace("blocks.1.hook_resid_post", "blocks.9.hook_resid_post"))
    code, out, err = run("rank-saes", "--study", folder)
    assert code == 3
    assert "first" in out
    assert "not ranked: second: refused: " in err
    assert "blocks.9" in err


def test_init_writes_a_study_that_opens(fresh: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "new"
    parts = ("--model", fresh / "model", "--sae", fresh / "saes/*", "--concepts", "builtin:starter")
    code, _, err = run("init", folder, *parts, "--corpus", fresh / "corpus.jsonl")
    assert code == 0, err
    assert Study.open(folder).configuration.concepts.files == ["builtin:starter"]
    before = contents(folder), (folder / "safesail.toml").read_bytes()
    code, _, err = run("init", folder, *parts)
    assert code == 1
    assert "exists: edit it, or add --overwrite" in err
    assert (contents(folder), (folder / "safesail.toml").read_bytes()) == before
