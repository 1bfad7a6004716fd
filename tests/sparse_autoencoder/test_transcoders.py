"""Transcoders in a model: they read and rebuild the right activations, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from torch import Tensor, nn

from safesail.errors import CandidateError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder

# Per model: modules of transformers whose input or output a transcoder is trained on.
MODELS: dict[str, tuple[str, str, str]] = {
    # model: norm before the MLP, MLP, what adds to the stream
    "tiny_gemma2": (
        "model.layers.1.pre_feedforward_layernorm",
        "model.layers.1.mlp",
        "model.layers.1.post_feedforward_layernorm",
    ),
    "tiny_qwen2": (
        "model.layers.1.post_attention_layernorm", "model.layers.1.mlp", "model.layers.1.mlp",
    ),
    "tiny_gpt2": ("transformer.h.1.ln_2", "transformer.h.1.mlp", "transformer.h.1.mlp"),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = request.param
    made: Path = getattr(models, name)(tmp_path_factory.mktemp("model") / name)
    return made


def transcoder(tmp_path: Path, hook_point: str, output: str | None, **more: Any) -> Path:
    about = {"hook_name": hook_point, "hook_name_out": output, **more.pop("metadata", {})}
    settings = {"d_out": 32, "apply_b_dec_to_input": False, **more}
    return models.random_sae(tmp_path / "s", "jumprelu_transcoder", metadata=about, **settings)


def load(folder: Path) -> SparseAutoencoder:
    return SparseAutoencoder.load(Candidate("s", str(folder), folder=folder), device="cpu")


def in_transformers(folder: Path, ids: Tensor) -> dict[str, Tensor]:
    """Input and output of the modules around one MLP, as transformers computes them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found[f"{name}.input"], found[name] = args[0][0], output[0]

        return hook

    for name in dict.fromkeys(MODELS[folder.name]):
        model.get_submodule(name).register_forward_hook(keep(name))
    with torch.no_grad():
        model(ids)
    return found


def test_what_transcoders_read_and_rebuild(folder: Path, tmp_path: Path) -> None:
    """Both published kinds: after the norm's division, and after its weight too."""
    norm, mlp, added = MODELS[folder.name]
    model = LanguageModel.load(str(folder), device="cpu")
    (text,) = model.tokenize("the cat sat on the mat", document="d", prepend_bos=True)
    (batch,) = model.batches([text], prepend_bos=True)
    expected = in_transformers(folder, batch.token_ids)
    before = expected[f"{norm}.input"]
    if model.norms_centre:
        before = before - before.mean(-1, keepdim=True)
    divided = before / (before.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    for hook_point, reads in (
        ("blocks.1.ln2.hook_normalized", divided),
        ("blocks.1.mlp.hook_in", expected[f"{mlp}.input"]),
    ):
        sae = load(transcoder(tmp_path / hook_point, hook_point, "blocks.1.hook_mlp_out"))
        sae.check_fits(model)
        points = [sae.hook_point, sae.output_hook_point]
        assert points == [hook_point, "blocks.1.hook_mlp_out"]
        found = model.activations(batch, points)
        torch.testing.assert_close(found[points[0]][0], reads, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[points[1]][0], expected[added], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(divided, expected[f"{mlp}.input"], atol=1e-2)
        assert sae.decode(sae.encode(found[points[0]][0])).shape == (len(divided), 32)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = models.tiny_gemma2(tmp_path_factory.mktemp("gemma") / "model")
    return LanguageModel.load(str(folder), device="cpu")


def test_modules_of_transformers_name_both_points(tmp_path: Path, gemma: LanguageModel) -> None:
    names = ("model.layers.1.mlp", "model.layers.1.post_feedforward_layernorm")
    sae = load(transcoder(tmp_path, *names))
    sae.check_fits(gemma)
    assert sae.output_hook_point == "blocks.1.hook_mlp_out"
    assert sae.layer == 1


@pytest.mark.parametrize("output", [None, "hook_embed"])
def test_a_transcoder_that_does_not_say_what_it_rebuilds(
    tmp_path: Path, output: str | None
) -> None:
    with pytest.raises(CandidateError, match="does not say what it rebuilds"):
        load(transcoder(tmp_path, "blocks.1.mlp.hook_in", output))


def test_an_output_that_the_model_lacks(tmp_path: Path, gemma: LanguageModel) -> None:
    sae = load(transcoder(tmp_path, "blocks.1.mlp.hook_in", "blocks.7.hook_mlp_out"))
    with pytest.raises(CandidateError, match=r"SAE s: hook point 'blocks.7.hook_mlp_out' is above"):
        sae.check_fits(gemma)


def test_an_output_of_another_size(tmp_path: Path, gemma: LanguageModel) -> None:
    sae = load(transcoder(tmp_path, "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out", d_out=33))
    with pytest.raises(CandidateError, match=r"rebuilds 33 numbers per token, blocks.1.hook_mlp"):
        sae.check_fits(gemma)


def test_a_name_that_means_two_things(tmp_path: Path) -> None:
    """TransformerLens means the stream before the norm, Gemma Scope 2's layout what comes after."""
    output = "blocks.1.hook_mlp_out"
    with pytest.raises(CandidateError, match=r"a name that is used for two things: set .*mlp.hook"):
        load(transcoder(tmp_path / "a", "blocks.1.hook_mlp_in", output))
    stated = {"hf_hook_name": "model.layers.1.pre_feedforward_layernorm.output"}
    sae = load(transcoder(tmp_path / "b", "blocks.1.hook_mlp_in", output, metadata=stated))
    assert sae.hook_point == "blocks.1.mlp.hook_in"


def test_skip_transcoders_decode_what_they_have_just_encoded(tmp_path: Path) -> None:
    about = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    settings = {"d_out": 32, "apply_b_dec_to_input": False}
    sae = load(models.random_sae(tmp_path / "s", "skip_transcoder", metadata=about, **settings))
    with pytest.raises(CandidateError, match="decodes only what it has just encoded"):
        sae.decode(torch.zeros(5, sae.width))
    x = torch.randn(5, 32)
    z = sae.encode(x)
    expected = sae.decode(z)
    sae.encode_features(torch.randn(3, 32), torch.tensor([0]))
    torch.testing.assert_close(sae.decode(z), expected)
    with pytest.raises(CandidateError, match="decodes only what it has just encoded"):
        sae.decode(z[:4])


def test_layouts_without_a_bos_rule_take_the_models(
    tmp_path: Path, llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAELens says BOS for Qwen Scope, whose models have none; its own folders mean it."""
    file = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50" / "layer1.sae.pt"
    file.parent.mkdir()
    torch.save(
        {"W_enc": torch.randn(96, 32), "W_dec": torch.randn(32, 96),
         "b_enc": torch.zeros(96), "b_dec": torch.zeros(32)}, file,
    )  # fmt: skip
    loaded = {"with": load(file), "without": load(file)}
    stated = load(models.random_sae(tmp_path / "own", "standard"))
    loaded["with"].check_fits(llama)
    monkeypatch.setattr(llama, "bos_token_id", None)
    loaded["without"].check_fits(llama)
    stated.check_fits(llama)
    assert [loaded["with"].prepend_bos, loaded["without"].prepend_bos] == [True, False]
    assert stated.prepend_bos is True
