"""Safe-SAIL's checkpoints, made by their documented keys, against the documented formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import random_sae
from torch import Tensor

from safesail.errors import CandidateError, StorageError
from safesail.sparse_autoencoder import SparseAutoencoder, convert, find_candidates

D_IN, WIDTH = 32, 300


def checkpoint(file: Path, *, theta: bool = False, **changes: Any) -> dict[str, Tensor]:
    """A file with a leading axis of components; `changes` replace tensors, None removes them."""
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int, scale: float) -> Tensor:
        return torch.randn(1, *shape, generator=generator) * scale

    bias = noise(D_IN, scale=0.5)
    tensors: dict[str, Tensor | None] = {
        "tied_bias": bias,
        "pre_encoder_bias._bias_reference": bias,
        "encoder.weight": noise(WIDTH, D_IN, scale=D_IN**-0.5),
        "encoder.bias": noise(WIDTH, scale=0.3),
        "decoder.weight": noise(D_IN, WIDTH, scale=D_IN**-0.5),
        "post_decoder_bias._bias_reference": bias,
    }
    if theta:
        tensors["encoder.theta"] = noise(WIDTH, scale=0.5).abs()
    tensors |= {name.replace("__", "."): value for name, value in changes.items()}
    kept = {name: value for name, value in tensors.items() if value is not None}
    torch.save(kept, file)
    return kept


def pre_activations(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """(x - pre_encoder_bias) @ encoder.weight.T + encoder.bias, as published."""
    bias = tensors.get("pre_encoder_bias._bias_reference", tensors.get("tied_bias"))
    assert bias is not None
    return (x - bias[0]) @ tensors["encoder.weight"][0].T + tensors["encoder.bias"][0]


def topk_relu(pre: Tensor, k: int) -> Tensor:
    """What is at least the k-th largest, then the ReLU."""
    smallest = pre.topk(k).values.min(dim=-1, keepdim=True).values
    return torch.where(pre < smallest, 0.0, pre).relu()


def inputs() -> Tensor:
    return torch.randn(50, D_IN, generator=torch.Generator().manual_seed(9)) + 0.4


def load(path: Path) -> SparseAutoencoder:
    (candidate,) = find_candidates([str(path)], path.parent)
    return SparseAutoencoder.load(candidate, device="cpu")


def saelens(folder: Path) -> Any:
    from sae_lens import SAE

    return SAE.load_from_disk(folder, device="cpu")


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CandidateError) as caught:
        convert(path, path.parent / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (path.parent / "out").exists()
    return str(caught.value)


def test_topk_with_two_hundred_active_features(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path / "ckpt_layer17.pt")
    sae = load(tmp_path / "ckpt_layer17.pt")
    assert (sae.hook_point, sae.layer) == ("blocks.17.hook_mlp_out", 17)
    assert (sae.architecture, sae.width, sae.d_in) == ("topk", WIDTH, D_IN)
    assert sae.prepend_bos is False
    (warning,) = sae.warnings
    assert "its k is taken as 200" in warning
    expected = topk_relu(pre_activations(tensors, inputs()), 200)
    # The k-th largest binds where more than k are positive; the ReLU where fewer are.
    positive = (pre_activations(tensors, inputs()) > 0).sum(1)
    assert (positive < 200).any()
    torch.testing.assert_close(sae.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    rebuilt = expected @ tensors["decoder.weight"][0].T + tensors["tied_bias"][0]
    torch.testing.assert_close(sae.decode(expected), rebuilt, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 20])
def test_converted_it_encodes_the_same_in_saelens(tmp_path: Path, k: int) -> None:
    tensors = checkpoint(tmp_path / "weights.pt")
    out = convert(
        tmp_path / "weights.pt", tmp_path / "out",
        layout="safe_sail", layer=8, k=k, model="Qwen/Qwen2.5-3B-Instruct",
    )  # fmt: skip
    written = saelens(out)
    expected = topk_relu(pre_activations(tensors, inputs()), k)
    assert ((expected > 0).sum(1) == k).all()
    with torch.no_grad():
        torch.testing.assert_close(written.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    metadata = json.loads((out / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.8.hook_mlp_out"
    assert metadata["model_name"] == "Qwen/Qwen2.5-3B-Instruct"
    again = load(out)
    torch.testing.assert_close(again.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    assert again.warnings == []


def test_jumprelu_by_theta(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path / "ckpt_layer3.pt", theta=True)
    pre = pre_activations(tensors, inputs())
    expected = pre * (pre > tensors["encoder.theta"][0])
    assert 0.05 < (expected != 0).float().mean() < 0.5
    sae = load(tmp_path / "ckpt_layer3.pt")
    assert (sae.architecture, sae.warnings) == ("jumprelu", [])
    torch.testing.assert_close(sae.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        converted = saelens(convert(tmp_path / "ckpt_layer3.pt", tmp_path / "out"))
        torch.testing.assert_close(converted.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    assert "is a JumpReLU SAE" in refusal(_beside(tmp_path), k=20)


def _beside(folder: Path) -> Path:
    (folder / "beside").mkdir()
    checkpoint(folder / "beside" / "ckpt_layer3.pt", theta=True)
    return folder / "beside" / "ckpt_layer3.pt"


@pytest.mark.parametrize(
    "without",
    [["tied_bias"], ["post_decoder_bias._bias_reference"],
     ["tied_bias", "post_decoder_bias._bias_reference"],
     ["pre_encoder_bias._bias_reference", "post_decoder_bias._bias_reference"]],
)  # fmt: skip
def test_a_tied_bias_under_any_of_its_names(tmp_path: Path, without: list[str]) -> None:
    tensors = checkpoint(tmp_path / "ckpt_layer1.pt", **dict.fromkeys(without))
    sae = load(tmp_path / "ckpt_layer1.pt")
    expected = topk_relu(pre_activations(tensors, inputs()), 200)
    torch.testing.assert_close(sae.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    bias = tensors.get("tied_bias", tensors.get("pre_encoder_bias._bias_reference"))
    assert bias is not None
    zeros = torch.zeros(2, WIDTH)
    torch.testing.assert_close(sae.decode(zeros), bias.expand(2, D_IN))


def test_two_biases_that_differ(tmp_path: Path) -> None:
    after = torch.ones(1, D_IN)
    tensors = checkpoint(tmp_path / "ckpt_layer1.pt", post_decoder_bias___bias_reference=after)
    assert torch.equal(tensors["post_decoder_bias._bias_reference"], after)
    sae = load(tmp_path / "ckpt_layer1.pt")
    expected = topk_relu(pre_activations(tensors, inputs()), 200)
    torch.testing.assert_close(sae.encode(inputs()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(torch.zeros(1, WIDTH)), after)


def test_files_of_the_old_torch_format(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path / "ckpt_layer1.pt")
    torch.save(tensors, tmp_path / "ckpt_layer1.pt", _use_new_zipfile_serialization=False)
    assert load(tmp_path / "ckpt_layer1.pt").width == WIDTH


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoder__weight": None}, "lacks one of encoder.weight, encoder.bias, decoder.weight; "
                                    "it holds encoder.bias, encoder.weight, post_decoder_bias"),
        ({"pre_encoder_bias___bias_reference": None, "tied_bias": None},
         "lacks pre_encoder_bias._bias_reference and tied_bias; it holds decoder.weight"),
        ({"encoder__bias": torch.zeros(2, WIDTH)}, "only SAEs of one component are read"),
        ({"encoder__theta": -torch.ones(1, WIDTH)}, "encoder.theta below zero"),
        ({"decoder__weight": torch.zeros(1, D_IN, WIDTH + 1)}, "W_dec is 301 x 32"),
        ({"encoder__bias": torch.full((1, WIDTH), torch.nan)}, "NaN or infinite"),
    ],
)  # fmt: skip
def test_other_checkpoints_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    checkpoint(tmp_path / "ckpt_layer1.pt", **changes)
    message = refusal(tmp_path / "ckpt_layer1.pt")
    assert said in message
    assert str(tmp_path) in message


def test_what_convert_asks_for(tmp_path: Path) -> None:
    checkpoint(tmp_path / "weights.pt")
    assert "in a layout that is known by its name" in refusal(tmp_path / "weights.pt")
    assert "does not say its layer" in refusal(tmp_path / "weights.pt", layout="safe_sail")
    many = {"layout": "safe_sail", "layer": 1, "k": WIDTH + 1}
    assert "has 300 features" in refusal(tmp_path / "weights.pt", **many)
    assert "there is no layout 'nonsense'" in refusal(tmp_path / "weights.pt", layout="nonsense")
    own = random_sae(tmp_path / "own", "standard")
    assert "says its own layer" in refusal(own, layer=3)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    source = random_sae(tmp_path / "source", "jumprelu")
    target = random_sae(tmp_path / "target", "standard")
    with pytest.raises(CandidateError, match="exists: add --overwrite"):
        convert(source, target)
    assert load(target).architecture == "standard"
    convert(source, target, overwrite=True)
    assert load(target).architecture == "jumprelu"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    for place in ("mine", "mine/thesis.tex"):
        with pytest.raises(CandidateError, match="holds no SAE: it is not replaced"):
            convert(source, tmp_path / place, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "source", "target"]


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    source = random_sae(tmp_path / "source", "jumprelu")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        convert(source, tmp_path / "file" / "out")
