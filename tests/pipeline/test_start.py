"""What `safesail init` proposes."""

from __future__ import annotations

from pathlib import Path

import pytest

from safesail.errors import ConfigurationError
from safesail.pipeline import start_study
from safesail.sparse_autoencoder import directory
from safesail.study import Study


def test_a_hub_model_gets_published_saes_over_its_layers(tmp_path: Path) -> None:
    start_study(tmp_path, model="google/gemma-2-2b", saes=[], concepts=[], corpus=[])
    configuration = Study.open(tmp_path).configuration
    known = {f"{e.release}:{e.sae_id}": e for e in directory("gemma-2-2b")}
    layers = [known[name].layer for name in configuration.candidates.saes]
    assert len(layers) >= 5
    assert layers == sorted(set(layers))
    assert 12 in layers  # so that `safesail explain --layer 12` has something to explain
    assert {known[name].hook_point for name in configuration.candidates.saes} == {
        f"blocks.{layer}.hook_resid_post" for layer in layers
    }
    assert configuration.concepts.files == ["builtin:starter"]
    assert configuration.corpus.sources[0].hub
    # Safety features are rare in general text.
    assert configuration.corpus.concept_texts


def test_paths_are_written_as_the_study_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saes" / "one").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "texts.txt").write_text("a text")
    monkeypatch.chdir(tmp_path)
    started = start_study(
        Path("studies/mine"),
        model="model",
        saes=["saes/*"],
        concepts=[],
        corpus=[Path("texts.txt")],
    )
    configuration = started.study.configuration
    assert configuration.model.name == "../../model"
    assert configuration.candidates.saes == ["../../saes/*"]
    assert configuration.corpus.sources[0].path == "../../texts.txt"


def test_nothing_is_replaced_unasked_and_nothing_is_made_up(tmp_path: Path) -> None:
    started = start_study(tmp_path, model="nobody/nothing", saes=[], concepts=[], corpus=[])
    assert started.study.configuration.candidates.saes == []
    (remark,) = started.remarks
    assert "no SAEs for model 'nobody/nothing'" in remark
    assert "safesail train-saes" in remark
    with pytest.raises(ConfigurationError, match="--overwrite"):
        start_study(tmp_path, model="builtin:lab", saes=[], concepts=[], corpus=[])
