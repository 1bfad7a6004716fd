"""Precision: which one is chosen, and what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import batch_of
from safetensors.torch import load_file, save_file

from safesail.errors import ModelError
from safesail.language_model import LanguageModel
from safesail.language_model._dtype import resolve_dtype

TEXTS = ["the cat sat on the mat", "a small boat", "dog"]
SITES = ["hook_resid_pre", "hook_resid_post", "hook_mlp_out"]


@pytest.fixture(scope="module")
def half_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family, whose weights are exact in bfloat16."""
    half = tmp_path_factory.mktemp("half") / "model"
    half.mkdir()
    for file in folder.iterdir():
        (half / file.name).write_bytes(file.read_bytes())
    weights = load_file(half / "model.safetensors")
    save_file(
        {name: value.bfloat16() for name, value in weights.items()},
        half / "model.safetensors",
        metadata={"format": "pt"},
    )
    return half


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near_float32(half_folder: Path, dtype: str, tolerance: float) -> None:
    whole = LanguageModel.load(str(half_folder), device="cpu")
    half = LanguageModel.load(str(half_folder), device="cpu", dtype=dtype)
    assert (whole.dtype, half.dtype) == ("float32", dtype)
    weights = half._bridge.original_model.parameters()
    assert {weight.dtype for weight in weights} == {getattr(torch, dtype)}
    batch = batch_of(whole, TEXTS)
    names = [f"blocks.{layer}.{site}" for layer in (0, 2) for site in SITES]
    expected, found = whole.activations(batch, names), half.activations(batch, names)
    for name in names:
        assert found[name].dtype == torch.float32
        one, other = (values[name][batch.content_mask] for values in (expected, found))
        error = ((one - other).norm() / one.norm()).item()
        assert error < tolerance, name
        # Embeddings are exact in bfloat16; all that is computed is not.
        assert error > 0 or name == "blocks.0.hook_resid_pre"
    assert set(half._forward.fast_sites(names)) == set(names)


def test_logit_directions_are_those_of_the_weights(half_folder: Path) -> None:
    whole = LanguageModel.load(str(half_folder), device="cpu")
    half = LanguageModel.load(str(half_folder), device="cpu", dtype="bfloat16")
    directions = torch.randn(5, whole.d_model, generator=torch.Generator().manual_seed(1))
    assert half.logit_directions(directions, 5) == whole.logit_directions(directions, 5)


@pytest.mark.parametrize(
    ("stored", "device", "computes_bfloat16", "expected"),
    [
        ({"dtype": "bfloat16"}, "cpu", True, torch.float32),
        ({"dtype": "float16"}, "mps", True, torch.float32),
        ({"dtype": "bfloat16"}, "cuda", True, torch.bfloat16),
        ({"dtype": "bfloat16"}, "cuda:1", False, torch.float32),
        ({"dtype": "float16"}, "cuda", False, torch.float16),
        ({"torch_dtype": "float16"}, "cuda", True, torch.float16),
        ({"dtype": "float32"}, "cuda", True, torch.float32),
        ({}, "cuda", True, torch.float32),
        ({"dtype": "float8_e4m3fn"}, "cuda", True, torch.float32),
        ({"text_config": {"dtype": "bfloat16"}}, "cuda", True, torch.bfloat16),
        ({"text_config": None}, "cuda", True, torch.float32),
    ],
)
def test_auto_is_what_the_device_computes_well(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: dict[str, object],
    device: str,
    computes_bfloat16: bool,
    expected: torch.dtype,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: computes_bfloat16)
    configuration = tmp_path / "config.json"
    configuration.write_text(json.dumps(stored))
    assert resolve_dtype("auto", device, configuration) == expected


def test_a_precision_that_does_not_exist(llama_folder: Path) -> None:
    with pytest.raises(ModelError, match="no precision 'int8': set `model"):
        LanguageModel.load(str(llama_folder), device="cpu", dtype="int8")
