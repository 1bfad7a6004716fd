"""`safesail explain --imported`: what others wrote, scored by the study's judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer

from safesail.tables import EXPLANATIONS, read_table

Run = Callable[..., tuple[int, str, str]]
SOURCE = "safe-sail:theirs.json"
SCORES = [f"{name}{end}" for name in ("correlation", "discrimination") for end in ("", "_low")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with JudgeServer() as running:
        yield running


@pytest.fixture
def study(explained: Path, copy: Callable[[Path], Path]) -> Path:
    return copy(explained)


@pytest.fixture
def ask(run: Run, server: JudgeServer, study: Path) -> Callable[..., tuple[int, str, str]]:
    judge = ("--judge-url", server.url, "--judge-model", "m")
    return lambda *more: run("explain", "--study", study, *judge, *more)


def rows(study: Path) -> list[dict[str, Any]]:
    (path,) = (study / "explanations").glob("*.parquet")
    return read_table(path, EXPLANATIONS).to_pylist()


def theirs(study: Path, run: Run, texts: dict[int, str | None]) -> None:
    """Import texts for features of the study's SAE."""
    layer, sae = rows(study)[0]["layer"], rows(study)[0]["sae"]
    entry = {"correlation_score": 0.9, "tag_list": ["theirs"]}
    entries = {f"{layer}_{f}": {"explanation": text, **entry} for f, text in texts.items()}
    path = study / "theirs.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    where = ("--study", study, "--format", "safe-sail", "--sae", sae)
    code, _, err = run("import", path, *where)
    assert code == 0, err


def test_a_text_is_scored_as_if_the_judge_had_written_it(
    ask: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    assert ask()[0] == 0
    own = {row["feature"]: row for row in rows(study) if row["explainer"] == "judge"}
    features = [feature for feature, row in own.items() if row["explanation"]]
    assert len(features) > 5
    texts: dict[int, str | None] = {f: own[f]["explanation"] for f in features[:-3]}
    texts |= {features[-3]: 'active at "nothing of this"', features[-2]: None}
    elsewhere = next(feature for feature in range(64) if feature not in own)
    texts |= {features[-1]: "murder of ***", elsewhere: "a feature's without contexts"}
    theirs(study, run, texts)
    server.requests.clear()
    code, out, err = ask("--imported", SOURCE)
    assert code == 0, err
    told = "not scored: of {} imported explanations 2 have no legible text, 1 are of features"
    assert told.format(len(texts)) in err
    assert f"explained by: {SOURCE}" in out
    found = [row for row in rows(study) if row["source"] == SOURCE and row["judge_model"]]
    assert len(found) == len(features) - 2
    # Nobody was asked for an explanation, and what was graded of a text is not paid for again.
    # Only the first run had a pilot, whose features were graded in more prompts.
    assert len(server.requests) == sum(row["calls"] for row in found)
    alike = [row for row in found if not row["calls"]]
    assert alike
    for row in alike:
        assert (row["explainer"], row["status"]) == ("imported", own[row["feature"]]["status"])
        assert [row[name] for name in SCORES] == [own[row["feature"]][name] for name in SCORES]
        assert (row["tags"], row["judge_concepts"]) == (["theirs"], None)
    wrong = next(row for row in found if row["feature"] == features[-3])
    # The last bit depends on the order in which prompts come back.
    assert wrong["discrimination"] == pytest.approx(0.5, abs=1e-12)
    # What came with the file, and what the judge wrote, stand beside it.
    before = [row for row in rows(study) if row["status"] == "imported"]
    assert [row["correlation"] for row in before] == [0.9] * len(texts)
    code, out, _ = run("show", features[0], "--study", study)
    assert out.count(f"[{SOURCE}] ") == 2
    assert "[m] " in out


def test_each_of_several_texts_of_a_feature_is_scored(
    ask: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    features = [row["feature"] for row in rows(study) if row["explanation"]][:3]
    layer, sae = rows(study)[0]["layer"], rows(study)[0]["sae"]
    source = study / f"{layer}-theirs" / "explanations" / "batch-0.jsonl"
    source.parent.mkdir(parents=True)
    texts = ['active at "one"', 'active at "two"', "  "]
    lines = [
        json.dumps({"layer": f"{layer}-theirs", "index": str(feature), "description": text})
        for feature in features
        for text in texts
    ]
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    where = ("--study", study, "--format", "neuronpedia", "--sae", sae)
    assert run("import", source, *where)[0] == 0
    name = f"neuronpedia:{layer}-theirs/batch-0.jsonl"
    dry = json.loads(ask("--imported", name, "--dry-run", "--json")[1])
    assert dry["features"] == 6
    code, _, err = ask("--imported", name)
    assert code == 0, err
    assert "of 9 imported explanations 3 have no legible text\n" in err

    def scored() -> list[tuple[int, str]]:
        found = [row for row in rows(study) if row["source"] == name and row["judge_model"]]
        return sorted((row["feature"], row["explanation"]) for row in found)

    expected = sorted((feature, text) for feature in features for text in texts[:2])
    assert scored() == expected
    asked = len(server.requests)
    # Again, and imported again: nothing changes, nothing is asked.
    assert run("import", source, *where)[0] == 0
    assert ask("--imported", name)[0] == 0
    assert (scored(), len(server.requests)) == (expected, asked)


def test_a_dry_run_goes_by_what_the_judge_scored_before(ask: Run, run: Run, study: Path) -> None:
    assert ask()[0] == 0
    own = [row for row in rows(study) if row["status"] == "scored" and row["judge_model"]]
    theirs(study, run, {row["feature"]: 'active at "one"' for row in own})
    found = json.loads(ask("--imported", SOURCE, "--dry-run", "--json")[1])
    assert found["basis"].startswith(f"by {len(own)} features that this judge has")
    assert ask("--imported", SOURCE)[0] == 0
    scored = [row for row in rows(study) if row["source"] == SOURCE and row["judge_model"]]
    used = sum(row["prompt_tokens"] + row["completion_tokens"] for row in scored)
    planned = found["prompt_tokens"] + found["completion_tokens"]
    assert planned == pytest.approx(used, rel=0.3)


def test_scores_last_as_long_as_their_text(
    ask: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    first, second = [row["feature"] for row in rows(study) if row["explanation"]][:2]
    theirs(study, run, {first: 'active at "one"', second: 'active at "two"'})
    code, out, _ = ask("--imported", SOURCE, "--dry-run", "--json")
    assert (code, json.loads(out)["features"]) == (0, 2)
    assert server.requests == []
    assert ask("--imported", SOURCE)[0] == 0
    asked = len(server.requests)
    assert json.loads(out)["least_tokens"] > 0
    assert ask("--imported", SOURCE)[0] == 0
    assert len(server.requests) == asked

    def scored() -> set[int]:
        return {row["feature"] for row in rows(study) if row["source"] and row["judge_model"]}

    theirs(study, run, {first: 'active at "one"', second: 'active at "another"'})
    assert scored() == {first}
    assert ask("--imported", SOURCE)[0] == 0
    assert scored() == {first, second}
    assert len(server.requests) > asked


def test_what_cannot_be_scored_is_said(
    ask: Run, run: Run, server: JudgeServer, study: Path
) -> None:
    code, _, err = ask("--imported", SOURCE)
    assert code == 1
    assert f"nothing in language en was imported from '{SOURCE}'" in err
    theirs(study, run, {rows(study)[0]["feature"]: "x", rows(study)[1]["feature"]: None})
    code, _, err = ask("--imported", "delphi:other")
    assert code == 1
    assert f"there are: {SOURCE} (en)" in err
    code, _, err = ask("--imported", SOURCE, "--language", "zh")
    assert code == 1
    code, _, err = run("explain", "--study", study, "--imported", SOURCE)
    assert code == 2
    assert "--judge-model" in err
    assert server.requests == []
