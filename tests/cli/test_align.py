"""`safesail align`, `align compare`, `align inspect` and `evaluate`, as users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge_server import JudgeServer
from study_folder import contents

from safesail.alignment import Subspace
from safesail.tables import ANSWERS, read_table

Run = Callable[..., tuple[int, str, str]]
WORDS = ("dog", "cat", "boat", "house", "nurse", "baker", "clerk", "singer")
SAES = ("--sae", "first", "--sae", "upper")
SMALL = ("--rank", "2", "--steps", "3", "--batch-size", "4", "--max-tokens", "48")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data to align with, and prompts to evaluate with."""
    folder = tmp_path_factory.mktemp("texts")
    safe = [
        {
            "prompt": f"the {word} sat {number}",
            "answer": "I cannot help with that.",
            "unaligned": f"the {word} ran to the {other}",
        }
        for number in range(3)
        for word, other in zip(WORDS, WORDS[1:] + WORDS[:1], strict=True)
    ]
    write(folder / "safe.jsonl", safe)
    benign = [{"prompt": f"where is the {w}", "answer": f"the {w} is here"} for w in WORDS * 3]
    write(folder / "benign.jsonl", benign)
    prompts = [
        {"prompt": f"the {word} {kind} {number}", "kind": kind}
        for number in range(2)
        for word in WORDS[:3]
        for kind in ("harmful", "look_alike")
    ]
    write(folder / "prompts.jsonl", [*prompts, {"prompt": "what", "kind": "benign", "answer": "x"}])
    write(folder / "heldout.jsonl", [{"text": "the dog sat on the cat, he read"}] * 2)
    return folder


@pytest.fixture(scope="module")
def study(explained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the module's own; its adapters lie elsewhere."""
    import study_folder

    return study_folder.copy_study(explained, tmp_path_factory.mktemp("align") / "study")


@pytest.fixture(scope="module")
def adapter(
    study: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Run], Path]:
    """An adapter, made once."""
    folder = tmp_path_factory.mktemp("adapters") / "sails"

    def make(run: Run) -> Path:
        if not folder.exists():
            code, _, err = run(*aligning(study, texts, "--output", folder))
            assert code == 0, err
        return folder

    return make


def aligning(study: Path, texts: Path, *more: Any) -> list[Any]:
    data = ["--data", texts / "safe.jsonl", "--benign", texts / "benign.jsonl"]
    return ["align", "--study", study, *data, *SAES, *SMALL, *more]


def test_a_dry_run_shows_the_subspace_and_advises(study: Path, texts: Path, run: Run) -> None:
    before = contents(study)
    code, out, err = run(*aligning(study, texts, "--dry-run"))
    assert code == 0, err
    for line in (
        "stream 2 (blocks.1.hook_resid_post), SAE first: rank 2 from 8 features",
        "stream 3 (blocks.2.hook_resid_post), SAE upper: rank 2 from 8 features",
    ):
        assert line in out
    assert out.count("advice for ") == 2
    # What the study explained stands beside its features.
    code, out, _ = run(*aligning(study, texts, "--dry-run", "--json"))
    found = json.loads(out)
    features = [one for layer in found["layers"] for one in layer["features"]]
    assert any(one["explanation"] for one in features)
    assert found["folder"] is None
    assert set(found["advice"]) == {"first", "upper"}
    assert contents(study) == before


def test_saes_that_do_not_fit_in_memory_together_are_read_in_turn(
    study: Path, texts: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit in (1e12, 1.0):
        monkeypatch.setattr(
            "safesail.sparse_autoencoder._memory.memory_limit", lambda _, n=limit: n
        )
        code, out, err = run(*aligning(study, texts, "--dry-run", "--json"))
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0] == found[1]


def test_an_adapter_is_trained_saved_and_refused_a_second_time(
    study: Path, texts: Path, run: Run, adapter: Callable[[Run], Path]
) -> None:
    folder = adapter(run)
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "loss.png", "loss.csv"} <= names
    provenance = json.loads((folder / "safesail_provenance.json").read_text())
    assert provenance["training"]["steps"] == 3
    subspace = Subspace.load(folder / "subspace")
    assert [layer.sae for layer in subspace.layers] == ["first", "upper"]
    for layer in subspace.layers:
        assert np.allclose(layer.basis.T @ layer.basis, np.eye(2), atol=1e-5)
    code, _, err = run(*aligning(study, texts, "--output", folder))
    assert code == 1
    assert f"{folder} exists already" in err


@pytest.mark.parametrize("over", ["response", "pairs"])
@pytest.mark.parametrize("route", ["raw_difference_pca", "random_features"])
def test_other_routes_and_texts(study: Path, texts: Path, run: Run, route: str, over: str) -> None:
    code, out, err = run(
        *aligning(study, texts, "--dry-run", "--json", "--route", route, "--over", over)
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["route"] == route
    assert [layer["rank"] for layer in found["layers"]] == [2, 2]
    drawn = 8 if route == "random_features" else 0
    assert [len(layer["features"]) for layer in found["layers"]] == [drawn, drawn]


def test_features_come_from_explanations_of_a_concept(study: Path, texts: Path, run: Run) -> None:
    common = ("align", "--study", study, "--data", texts / "safe.jsonl", "--sae", "upper")
    common = (*common, "--dry-run", "--json")
    code, out, err = run(*common, "--from-explanations", "--concept", "fraud", "--rank", "1")
    assert code == 0, err
    features = [one for layer in json.loads(out)["layers"] for one in layer["features"]]
    assert features
    assert all(any(c.startswith("fraud") for c in one["concepts"]) for one in features)
    assert run(*common, "--from-explanations")[0] == 2
    code, _, err = run(*common, "--concept", "fraud")
    assert code == 2
    assert "say what it chooses" in err
    for options, said in (
        (("--from-explanations",), "no explained feature of upper is given to 'magic'"),
        (("--over", "pairs"), "the study has no contrast pairs of 'magic'"),
    ):
        code, _, err = run(*common, *options, "--concept", "fraud", "--concept", "magic")
        assert code == 1
        assert said in err


def test_it_is_read_back(study: Path, run: Run, adapter: Callable[[Run], Path]) -> None:
    folder = adapter(run)
    code, out, err = run("align", "inspect", folder, "--study", study, *SAES)
    assert code == 0, err
    assert "route sae" in out
    code, out, _ = run("align", "inspect", folder, "--study", study, *SAES, "--json")
    modules = [one for one in json.loads(out)["modules"] if one["saes"]]
    # After a few small steps the change still lies in the span of what shaped it.
    assert modules
    assert all(one["basis"]["share"] > 0.9 for one in modules)


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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--sae", "second"), "belong to the same state of the residual stream"),
        (("--rank", "500"), "rank 500 in a stream of 32 dimensions"),
        (("--from-explanations", "--concept", "fraud"), "first has no explained feature"),
        (("--modules", "q"), "no module chosen reads or writes blocks.2.hook_resid_post"),
        (("--over", "pairs", "--unaligned", "x.jsonl"), "leave --unaligned out"),
        (("--data", "absent.jsonl"), "absent.jsonl"),
        (("--modules", "w"), "w"),
    ],
)
def test_bad_input_is_one_line(
    study: Path, texts: Path, run: Run, tmp_path: Path, changed: tuple[str, str], said: str
) -> None:
    code, _, err = run(*aligning(study, texts, "--output", tmp_path / "out", *changed))
    assert code == 1
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--learning-rate", "0"), "positive"),
        (("--from-explanations", "--concept", "fraud", "--route", "random"), "chooses no features"),
    ],
)
def test_bad_usage_is_told(
    study: Path, texts: Path, run: Run, changed: tuple[str, ...], said: str
) -> None:
    code, _, err = run(*aligning(study, texts, "--dry-run", *changed))
    assert code == 2
    assert said in err


def test_sides_that_are_the_same_in_any_order_are_refused(
    study: Path, texts: Path, run: Run, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (texts / "safe.jsonl").read_text().splitlines()]
    same = write(tmp_path / "same.jsonl", rows[::-1])
    code, _, err = run(*aligning(study, texts, "--dry-run", "--unaligned", same))
    assert code == 1
    assert "aligned and unaligned answers are the same" in err


def test_answers_to_the_same_prompts_are_pairs_in_any_order(
    study: Path, texts: Path, tmp_path: Path
) -> None:
    from safesail.pipeline import read_data
    from safesail.study import Study

    rows = [json.loads(line) for line in (texts / "safe.jsonl").read_text().splitlines()]
    turned = [{"prompt": one["prompt"], "answer": one["unaligned"]} for one in rows[::-1]]
    other = write(tmp_path / "turned.jsonl", turned)
    opened = Study.open(study)
    _, one = read_data(opened, str(texts / "safe.jsonl"))
    _, two = read_data(opened, str(texts / "safe.jsonl"), unaligned=str(other))
    assert one == two
    assert two.paired
    _, odd = read_data(
        opened, str(texts / "safe.jsonl"), unaligned=str(write(tmp_path / "odd.jsonl", turned[1:]))
    )
    assert not odd.paired


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


def test_answers_that_lose_their_end_are_told(
    study: Path, texts: Path, run: Run, tmp_path: Path
) -> None:
    short = ("--max-tokens", "20", "--output", tmp_path / "out")
    code, _, err = run(*aligning(study, texts, *short))
    assert code == 0, err
    assert "answers lost their end" in err


def test_what_is_no_adapter_is_never_replaced(study: Path, texts: Path, run: Run) -> None:
    """Least of all a study."""
    before = contents(study)
    code, _, err = run(*aligning(study, texts, "--output", study, "--overwrite"))
    assert code == 1
    assert "holds something else than an adapter, which is never replaced" in err
    assert contents(study) == before


def test_an_adapter_is_replaced_when_asked(
    study: Path, texts: Path, run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    assert run(*aligning(study, texts, "--output", folder))[0] == 0
    code, _, err = run(*aligning(study, texts, "--output", folder, "--overwrite", "--seed", "1"))
    assert code == 0, err
    provenance = json.loads((folder / "safesail_provenance.json").read_text())
    assert provenance["training"]["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


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
