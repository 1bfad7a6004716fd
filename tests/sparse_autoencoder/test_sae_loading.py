"""What an SAE says of itself, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import random_sae
from safetensors.torch import load_file, save_file

from safesail.errors import CandidateError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder, find_candidates


def load(folder: Path) -> SparseAutoencoder:
    return SparseAutoencoder.load(Candidate("sae", str(folder), folder=folder), device="cpu")


def refusal(folder: Path) -> str:
    with pytest.raises(CandidateError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def edit(folder: Path, **changes: Any) -> None:
    """Change cfg.json; a value of None takes the key away."""
    path = folder / "cfg.json"
    configuration = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in configuration.items() if value is not None}
    path.write_text(json.dumps(kept))


def edit_metadata(folder: Path, **changes: Any) -> None:
    metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
    edit(folder, metadata={**metadata, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_sae(tmp_path / "sae", "jumprelu")


def test_what_a_loaded_sae_says_of_itself(folder: Path) -> None:
    sae = load(folder)
    assert (sae.name, sae.source) == ("sae", str(folder))
    assert (sae.architecture, sae.width, sae.d_in) == ("jumprelu", 96, 32)
    assert (sae.hook_point, sae.layer) == ("blocks.1.hook_resid_post", 1)
    assert (sae.prepend_bos, sae.context_size, sae.model_name) == (True, 64, "tiny")
    assert sae.warnings == []


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_a_folder_without_configuration(folder: Path) -> None:
    (folder / "cfg.json").unlink()
    message = refusal(folder)
    assert "is not an SAE: it holds sae_weights.safetensors; an SAE's folder has cfg" in message


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "sae_weights.safetensors").unlink()
    assert "sae_weights.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"', "\udcff"])
def test_a_malformed_configuration(folder: Path, content: str) -> None:
    (folder / "cfg.json").write_bytes(content.encode(errors="surrogateescape"))
    assert "cfg.json" in refusal(folder)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_training_forms_say_how_to_export_them(folder: Path, architecture: str) -> None:
    edit(folder, architecture=architecture)
    assert "save_inference_model" in refusal(folder)


@pytest.mark.parametrize("architecture", ["temporal", "nonsense", 3])
def test_architectures_that_are_not_ranked(folder: Path, architecture: Any) -> None:
    edit(folder, architecture=architecture)
    assert "standard, jumprelu, gated, topk" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 7, 1000])
def test_truncated_weights(folder: Path, keep: int) -> None:
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "are its files whole" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("W_enc", "W_enc is 32 x 97, its configuration says d_in 32, d_sae 96"),
        ("W_dec", "W_dec is 96 x 33, its configuration says d_in 32, d_sae 96"),
        ("threshold", "threshold is 97, its"),
        ("b_dec", "b_dec is 33, its"),
    ],
)
def test_a_tensor_of_another_size(folder: Path, name: str, said: str) -> None:
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    shape = list(weights[name].shape)
    shape[-1] += 1
    save_file({**weights, name: torch.zeros(shape)}, file)
    assert said in refusal(folder)


def test_weights_of_another_width(folder: Path) -> None:
    edit(folder, d_sae=97)
    assert "configuration and weights do not belong together" in refusal(folder)


def test_weights_that_lack_a_tensor(folder: Path) -> None:
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    del weights["threshold"]
    save_file(weights, file)
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    weights["W_dec"][3, 5] = value
    save_file(weights, file)
    assert "NaN or infinite" in refusal(folder)


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
def test_normalisation_that_was_not_folded(folder: Path, normalisation: str) -> None:
    edit(folder, normalize_activations=normalisation)
    assert f"expects normalize_activations '{normalisation}'" in refusal(folder)


@pytest.mark.parametrize("name", [None, "hook_embed"])
def test_a_hook_point_outside_the_blocks(folder: Path, name: str | None) -> None:
    edit_metadata(folder, hook_name=name)
    assert "lies in no block of a model" in refusal(folder)


def test_configurations_before_saelens_6(folder: Path) -> None:
    """They lie flat, and their BOS rule is true unless said otherwise."""
    edit(
        folder,
        metadata=None,
        architecture="jumprelu",
        hook_name="blocks.2.hook_mlp_out",
        model_name="gpt2-small",
        context_size=128,
    )
    (candidate,) = find_candidates([str(folder)], folder)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    assert (sae.hook_point, sae.layer, candidate.layer) == ("blocks.2.hook_mlp_out", 2, 2)
    assert (sae.prepend_bos, sae.context_size, sae.model_name) == (True, 128, "gpt2-small")


def test_an_unknown_bos_rule_is_a_warning(folder: Path) -> None:
    edit_metadata(folder, prepend_bos=None)
    sae = load(folder)
    assert sae.prepend_bos is True
    assert sae.warnings == ["its cfg.json does not say prepend_bos: taken as true"]


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    (candidate,) = find_candidates([str(folder)], folder)
    first = load(folder).fingerprint
    assert candidate.fingerprint() == first
    (folder / "notes.txt").write_text("no part of the SAE")
    assert candidate.fingerprint() == first
    edit_metadata(folder, prepend_bos=False)
    second = candidate.fingerprint()
    assert second != first
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    weights["b_dec"] += 1
    save_file(weights, file)
    assert candidate.fingerprint() not in (first, second)


def test_a_damaged_candidate_still_has_a_fingerprint(tmp_path: Path) -> None:
    assert Candidate("s", str(tmp_path), folder=tmp_path / "nowhere").fingerprint()


def test_it_fits_the_model_it_was_made_for(folder: Path, llama: LanguageModel) -> None:
    sae = load(folder)
    sae.check_fits(llama)
    assert sae.warnings == []


def test_hugging_face_names_are_settled(tmp_path: Path, llama: LanguageModel) -> None:
    name = "model.layers.2.mlp.down_proj"
    sae = load(random_sae(tmp_path / "s", "topk", hook_point=name))
    assert (sae.hook_point, sae.layer) == (name, 2)
    sae.check_fits(llama)
    assert (sae.hook_point, sae.layer) == ("blocks.2.hook_mlp_out", 2)


def test_a_hook_point_that_the_model_lacks(tmp_path: Path, llama: LanguageModel) -> None:
    sae = load(random_sae(tmp_path / "s", "topk", hook_point="blocks.9.hook_resid_post"))
    with pytest.raises(CandidateError, match=r"SAE sae: hook point .* is above model 'model'"):
        sae.check_fits(llama)


@pytest.mark.parametrize(
    ("d_in", "hook_point", "size"),
    [(48, "blocks.1.hook_resid_post", 32), (32, "blocks.1.mlp.hook_post", 48)],
)
def test_another_width_than_the_hook_points(
    tmp_path: Path, llama: LanguageModel, d_in: int, hook_point: str, size: int
) -> None:
    sae = load(random_sae(tmp_path / "s", "standard", d_in, hook_point))
    with pytest.raises(CandidateError, match=f"reads {d_in} numbers per token, .* has {size}"):
        sae.check_fits(llama)


def test_inside_the_mlp_the_width_is_the_mlps(tmp_path: Path, llama: LanguageModel) -> None:
    load(random_sae(tmp_path / "s", "standard", 48, "blocks.1.mlp.hook_post")).check_fits(llama)


def test_another_models_name_is_a_warning(
    folder: Path, llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "folder", None)  # a model from the hub has a name to go by
    monkeypatch.setattr(llama, "name", "google/gemma-2-2b-it")
    edit_metadata(folder, model_name="gemma-2-2b")
    sae = load(folder)
    sae.check_fits(llama)
    sae.check_fits(llama)
    assert sae.warnings == ["it was trained on gemma-2-2b, the model is google/gemma-2-2b-it"]
    edit_metadata(folder, model_name="Gemma-2-2b-IT")
    sae = load(folder)
    sae.check_fits(llama)
    assert sae.warnings == []


def test_a_published_sae_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (candidate,) = find_candidates(["gpt2-small-res-jb:blocks.8.hook_resid_pre"], Path())
    with pytest.raises(
        CandidateError, match="cannot be fetched from the Hugging Face hub"
    ) as caught:
        SparseAutoencoder.load(candidate, device="cpu")
    assert "gpt2-small-res-jb:blocks.8.hook_resid_pre" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_published_sae_is_loaded_by_saelens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from the hub, with its files served from here."""
    import sae_lens.loading.pretrained_sae_loaders as loaders
    from huggingface_hub.errors import EntryNotFoundError

    def download(*, repo_id: str, filename: str, **_: Any) -> str:
        assert repo_id == "jbloom/GPT2-Small-SAEs-Reformatted"
        file = folder / Path(filename).name
        if not file.exists():
            raise EntryNotFoundError(filename)
        return str(file)

    monkeypatch.setattr(loaders, "hf_hub_download", download)
    (candidate,) = find_candidates(["gpt2-small-res-jb:blocks.8.hook_resid_pre"], Path())
    sae = SparseAutoencoder.load(candidate, device="cpu")
    assert sae.fingerprint == "gpt2-small-res-jb:blocks.8.hook_resid_pre"
    x = torch.randn(5, 32)
    torch.testing.assert_close(sae.encode(x), load(folder).encode(x))
    edit(folder, normalize_activations="expected_average_only_in")
    with pytest.raises(CandidateError, match="expected_average_only_in"):
        SparseAutoencoder.load(candidate, device="cpu")
