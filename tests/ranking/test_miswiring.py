"""Really trained SAEs, wired wrongly on purpose: each is named, and none that is right."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import models
import pytest
from safetensors.torch import load_file, save_file
from training import train_sae

from safesail.concepts import ConceptSet, ContrastPair
from safesail.corpus import Corpus, Document
from safesail.language_model import LanguageModel
from safesail.ranking._design import PairDesign
from safesail.ranking._groups import Refused, observe_candidates
from safesail.ranking._health import judge_health
from safesail.sparse_autoencoder import find_candidates
from safesail.study import RankingSettings

HOOK_POINT = "blocks.1.hook_resid_post"
WHO = ["the cat", "a small boat", "the old dog", "she", "nobody", "the mat", "a cold sea"]
DID = ["sat on", "wrote a letter to", "read about", "sailed over", "sold", "answered", "knew"]
WHOM = ["the door", "the north", "a forged letter", "the big cat", "two dogs", "it twice", "him"]
TEXTS = [" ".join(words) for words in product(WHO, DID, WHOM)]
PAIRS = ConceptSet(ContrastPair("a", f"{text} and sat", f"{text} and ran") for text in TEXTS[:20])


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("model") / "model", num_hidden_layers=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, Path]:
    """By name: SAEs of block 1."""
    folder = tmp_path_factory.mktemp("saes")
    return {
        name: train_sae(
            folder / name,
            model_folder,
            TEXTS,
            HOOK_POINT,
            steps=250,
            batchtopk=name.startswith("jumprelu"),
            normalise=name.endswith("unfolded"),
        )
        for name in ("topk", "jumprelu", "topk-unfolded", "jumprelu-unfolded")
    }


def judged(model_folder: Path, sae_folder: Path) -> tuple[str, list[str]]:
    """Health and warnings of an SAE on a model."""
    (candidate,) = find_candidates([str(sae_folder)], sae_folder.parent)
    corpus = Corpus([], sae_folder, [Document(str(n), text) for n, text in enumerate(TEXTS)])
    (found,) = observe_candidates(
        LanguageModel.load(str(model_folder), device="cpu"),
        [candidate],
        PairDesign.of(PAIRS, 0),
        corpus,
        RankingSettings(sample_tokens=2_000),
        progress=lambda items, label: items,
    )
    if isinstance(found, Refused):
        return found.reason, []
    health, warnings = judge_health(found)
    assert not any("\n" in line for line in (health, *warnings))
    return health, warnings


def changed(sae_folder: Path, to: Path, **metadata: Any) -> Path:
    """A copy whose cfg.json says something else."""
    shutil.copytree(sae_folder, to)
    configuration = json.loads((to / "cfg.json").read_text())
    configuration["metadata"] |= metadata
    (to / "cfg.json").write_text(json.dumps(configuration))
    return to


@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_a_healthy_sae_is_ok(model_folder: Path, trained: dict[str, Path], name: str) -> None:
    assert judged(model_folder, trained[name]) == ("ok", [])


@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_the_wrong_layer_is_refused_and_the_right_one_named(
    model_folder: Path, trained: dict[str, Path], tmp_path: Path, name: str, layer: int
) -> None:
    declared = f"blocks.{layer}.hook_resid_post"
    wrong = changed(trained[name], tmp_path / "wrong", hook_name=declared)
    health, _ = judged(model_folder, wrong)
    assert health.startswith(f"reads like an SAE of {HOOK_POINT}: 0.")
    assert f"at {declared}; set `metadata.hook_name`" in health


@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_another_model_of_the_same_shape_is_named(
    trained: dict[str, Path], tmp_path: Path, name: str
) -> None:
    other = models.tiny_llama(tmp_path / "model", num_hidden_layers=4, seed=1)
    health, warnings = judged(other, trained[name])
    assert any("trained on another model" in line for line in (health, *warnings))


def test_a_dropped_threshold_is_named(
    model_folder: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    dropped = changed(trained["jumprelu"], tmp_path / "dropped")
    weights = load_file(dropped / "sae_weights.safetensors")
    weights["threshold"] = weights["threshold"] * 0
    save_file(weights, dropped / "sae_weights.safetensors")
    _, warnings = judged(model_folder, dropped)
    assert any("its makers state 8.0: threshold lost" in warning for warning in warnings)
    assert any("of its 128 features are active on a token" in warning for warning in warnings)


@pytest.mark.parametrize("name", ["topk-unfolded", "jumprelu-unfolded"])
def test_an_unfolded_normalisation_is_named(
    model_folder: Path, trained: dict[str, Path], name: str
) -> None:
    health, warnings = judged(model_folder, trained[name])
    said = next(line for line in (health, *warnings) if "SAE of activations times" in line)
    assert "fold the normalisation of its training into its weights" in said
    # 2.7 is what SAELens scales by here; the check has few tokens to tell it.
    assert float(re.findall(r"times ([\d.]+):", said)[0]) == pytest.approx(2.7, abs=0.2)


def test_a_normalisation_that_the_checkpoint_expects_is_refused(
    model_folder: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    expecting = changed(trained["topk-unfolded"], tmp_path / "expecting")
    configuration = json.loads((expecting / "cfg.json").read_text())
    configuration["normalize_activations"] = "expected_average_only_in"
    (expecting / "cfg.json").write_text(json.dumps(configuration))
    health, _ = judged(model_folder, expecting)
    assert "'expected_average_only_in', whose scale is not in the checkpoint" in health
