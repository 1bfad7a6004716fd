"""`safesail align` and `align inspect`, as users run them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aligning import SAES, Run, aligning, write
from study_folder import contents

from safesail.alignment import Subspace


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
