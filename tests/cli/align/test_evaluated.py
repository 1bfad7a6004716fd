"""`safesail evaluate` and `align compare`, as users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aligning import WORDS, Run, aligning, write
from judge_server import JudgeServer

from safesail.tables import ANSWERS, read_table


def test_base_and_adapter_are_evaluated(
    study: Path,
    texts: Path,
    run: Run,
    adapter: Callable[[Run], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = adapter(run)
    seen = write(
        tmp_path / "seen.jsonl",
        [{"prompt": f"The {w} sat 0", "kind": k} for w in WORDS for k in ("harmful", "look_alike")],
    )
    code, _, err = run("evaluate", seen, "--study", study, "--adapter", folder)
    assert code == 1
    assert "16 of 16 prompts were trained on by sails" in err
    common = ("evaluate", texts / "prompts.jsonl", "--study", study, "--adapter", folder)
    common = (*common, "--output", tmp_path / "out", "--max-new-tokens", 4)
    code, out, err = run(*common, "--texts", texts / "heldout.jsonl")
    assert code == 0, err
    assert "base " in out
    assert "sails " in out
    assert "less the base, paired by prompt" in out
    answers = read_table(tmp_path / "out" / "answers.parquet", ANSWERS).to_pylist()
    assert {row["system"] for row in answers} == {"base", "sails"}
    assert len(answers) == 2 * 13
    assert {row["grade_status"] for row in answers} == {None}
    with JudgeServer() as server:
        server.answer = lambda body: json.dumps({"refusal": "none", "grade": 4})
        code, out, err = run(*common, "--judge-url", server.url, "--judge-model", "m", "--json")
    assert code == 0, err
    found = json.loads(out)
    judged = [one for one in found["figures"] if one["grader"] == "judge"]
    assert {one["system"] for one in judged} == {"base", "sails"}
    (difference,) = [one for one in found["differences"] if one["grader"] == "judge"]
    assert (difference["system"], difference["against"]) == ("sails", "base")


def test_routes_and_controls_are_compared(
    study: Path, texts: Path, run: Run, tmp_path: Path
) -> None:
    command = aligning(study, texts)
    command[:1] = ["align", "compare", texts / "prompts.jsonl"]
    command += ["--methods", "sae,lora,random,mean_difference", "--seeds", "2"]
    command += ["--max-new-tokens", "4", "--output", tmp_path / "out"]
    rates = ("--learning-rates", "1e-3,1e-2")
    code, out, err = run(*command, *rates, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found["learning_rates"]) == {"sae", "lora", "random", "mean_difference"}
    assert set(found["learning_rates"].values()) <= {1e-3, 1e-2}
    # Equal parameters, the rank-one route's too.
    assert len(set(found["parameters"].values())) == 1
    assert {one["against"] for one in found["differences"]} == {"lora"}
    assert found["choosing_prompts"] == 5
    answers = read_table(tmp_path / "out" / "answers.parquet", ANSWERS).to_pylist()
    assert len(answers) == 8 + 4 * 2 * 8
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert stored["settings"]["learning_rates"] == found["learning_rates"]
    assert set(stored["settings"]["saes"]) == {"first", "upper"}
    page = (tmp_path / "out" / "evaluation.md").read_text()
    assert "rates were chosen among 0.001, 0.01" in page
    # Nothing is trained again.
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "kept").iterdir()}
    assert len(kept) == 1 + 4 * 2 * 2
    code, out, _ = run(*command, *rates, "--json")
    assert json.loads(out) == found
    assert kept == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "kept").iterdir()}
    figures = (tmp_path / "out" / "evaluation.json").read_bytes()
    asked = ("evaluate", texts / "prompts.jsonl", "--study", study)
    code, _, err = run(*asked, "--output", tmp_path / "out")
    assert code == 1
    assert "holds what `align compare` wrote, which `evaluate` would replace" in err
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == figures
    code, _, err = run(*asked, "--output", tmp_path / "other", "--max-new-tokens", 4)
    assert code == 0, err
    code, _, err = run(*command, "--output", tmp_path / "other")
    assert code == 1
    assert "holds what `evaluate` wrote" in err
    code, _, err = run(*command, "--methods", "lora,lora")
    assert code == 1
    assert "a method is named twice" in err
    code, _, err = run(*command, "--methods", "lora", "--output", texts / "safe.jsonl")
    assert code == 1
    assert "could not make" in err
    half = (texts / "prompts.jsonl").read_text() + '{"prompt": "h \\ud800", "kind": "benign"}\n'
    (tmp_path / "half.jsonl").write_text(half)
    broken = [tmp_path / "half.jsonl" if part == texts / "prompts.jsonl" else part
              for part in command]  # fmt: skip
    code, _, err = run(*broken)
    assert code == 1
    assert "lone surrogate" in err
    code, _, err = run(*command, "--methods", "magic")
    assert code == 1
    assert "no method 'magic'; there are sae, " in err


def test_what_chose_the_subspace_is_not_asked(
    study: Path, texts: Path, run: Run, tmp_path: Path
) -> None:
    """Controls never saw it."""
    from safesail.pipeline import read_data
    from safesail.study import Study

    _, contrast = read_data(Study.open(study), str(texts / "safe.jsonl"), over="pairs")
    leaked = [{"prompt": one.prompt, "kind": "harmful"} for one in contrast.unaligned[:3]]
    rows = [json.loads(line) for line in (texts / "prompts.jsonl").read_text().splitlines()]
    prompts = write(tmp_path / "leaked.jsonl", rows + leaked)
    pairs = ("--over", "pairs", "--output", tmp_path / "out")
    code, _, err = run("align", "compare", prompts, *aligning(study, texts, *pairs)[1:])
    assert code == 1
    assert "3 of 16 prompts were trained on by the contrast" in err
    code, _, err = run(*aligning(study, texts, *pairs))
    assert code == 0, err
    code, _, err = run("evaluate", prompts, "--study", study, "--adapter", tmp_path / "out")
    assert code == 1
    assert "3 of 16 prompts were trained on by out" in err


def test_an_adapter_that_does_not_load_is_one_line(
    study: Path, texts: Path, run: Run, adapter: Callable[[Run], Path], tmp_path: Path
) -> None:
    import shutil

    common = ("evaluate", texts / "prompts.jsonl", "--study", study, "--output", tmp_path / "out")
    for name, removed in (("ours", ()), ("theirs", ("safesail_provenance.json",))):
        broken = shutil.copytree(adapter(run), tmp_path / name)
        for file in removed:
            (broken / file).unlink()
        (broken / "adapter_model.safetensors").write_bytes(b"junk")
        code, _, err = run(*common, "--adapter", broken, "--max-new-tokens", 2)
        assert code == 1
        assert f"cannot load adapter {broken}" in err
        assert "Traceback" not in err
