"""`safesail doctor` names what will not work, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import JudgeServer
from study_folder import change_setting, make_study

from safesail.pipeline import Check, check_setup
from safesail.study import Study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study")


def checks(study: Path) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for check in check_setup(Study.open(study)):
        assert "\n" not in check.finding
        found.setdefault(check.subject, []).append(check)
    return found


def failed(study: Path) -> dict[str, str]:
    return {
        subject: check.finding
        for subject, members in checks(study).items()
        for check in members
        if check.outcome == "failed"
    }


def test_a_sound_study(study: Path) -> None:
    found = checks(study)
    assert {subject: members[0].outcome for subject, members in found.items()} == dict.fromkeys(
        ["installed", "machine", "model", "candidates", "concepts", "corpus", "judge"], "ok"
    )
    assert "3 layers" in found["model"][0].finding
    assert found["candidates"][0].finding.startswith("3 local SAEs")


def test_every_fault_is_named_at_once(study: Path) -> None:
    (study / "saes" / "first" / "sae_weights.safetensors").write_bytes(b"garbage")
    (study / "concepts.jsonl").write_text('{"concept": "x"\n', encoding="utf-8")
    (study / "corpus.jsonl").write_text("", encoding="utf-8")
    faults = failed(study)
    assert set(faults) == {"candidates", "concepts", "corpus"}
    assert "first" in faults["candidates"]
    assert "line 1" in faults["concepts"]


@pytest.mark.parametrize(
    ("name", "said"), [("no-such/model", "hub cannot be reached"), ("./nowhere", "does not exist")]
)
def test_a_model_that_is_not_here(study: Path, name: str, said: str) -> None:
    change_setting(study, 'name = "model"', f'name = "{name}"')
    faults = failed(study)
    assert set(faults) == {"model"}
    assert said in faults["model"]


def test_published_candidates_are_asked_for_at_the_hub(study: Path) -> None:
    change_setting(study, 'saes = ["saes/*"]', 'saes = ["gpt2-small-res-jb:blocks.8.*"]')
    assert "hub cannot be reached" in failed(study)["candidates"]


def test_a_judge_that_is_not_there_and_one_that_is(study: Path) -> None:
    with (study / "safesail.toml").open("a", encoding="utf-8") as file:
        file.write('\n[judge]\nmodel = "m"\nurl = "http://127.0.0.1:9/v1"\n')
    assert "http://127.0.0.1:9/v1" in failed(study)["judge"]
    with JudgeServer() as server:
        change_setting(study, "http://127.0.0.1:9/v1", server.url)
        assert failed(study) == {}
