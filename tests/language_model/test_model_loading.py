"""Loading: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

from safesail.errors import ModelError
from safesail.language_model import LanguageModel
from safesail.language_model.names import official_name, same_model


def refusal(reference: str, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(reference, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_a_loaded_model_says_of_itself(llama: LanguageModel, llama_folder: Path) -> None:
    assert llama.name == llama_folder.name
    assert llama.folder == llama_folder
    assert (llama.layers, llama.d_model, llama.context_size) == (3, models.D_MODEL, 64)
    assert llama.bos_token_id == 0
    assert llama.device == "cpu"


def test_relative_folders_start_at_the_given_one(llama: LanguageModel, llama_folder: Path) -> None:
    found = LanguageModel.load("model", folder=llama_folder.parent, device="cpu")
    assert found.folder == llama_folder
    assert found.fingerprint == llama.fingerprint


def test_a_folder_never_asks_the_network(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert LanguageModel.load(str(llama_folder), device="cpu").layers == 3


def test_loading_is_quiet_and_leaves_logging_as_it_was(
    llama_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("transformers").level
    handlers = list(logging.getLogger("transformers").handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LanguageModel.load(str(llama_folder), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level == level
    assert logging.getLogger("transformers").handlers == handlers


def test_half_precision_checkpoints_are_read_as_float32(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file(
        {name: value.bfloat16() for name, value in weights.items()},
        tmp_path / "m" / "model.safetensors",
        metadata={"format": "pt"},
    )
    model = LanguageModel.load(str(tmp_path / "m"), device="cpu")
    (batch,) = model.batches(
        model.tokenize("the cat", document="d", prepend_bos=True), prepend_bos=True
    )
    found = model.activations(batch, ["blocks.0.mlp.hook_post"])["blocks.0.mlp.hook_post"]
    assert found.dtype == torch.float32
    # Computed in bfloat16, all values would be exact in it.
    assert not torch.equal(found, found.bfloat16().float())


def test_a_missing_folder(tmp_path: Path) -> None:
    message = refusal("./nowhere", folder=tmp_path)
    assert message.startswith(f"model folder {tmp_path / 'nowhere'} does not exist")
    assert "does not exist" in refusal(str(tmp_path / "nowhere"))
    assert "does not exist" in refusal("models/of/mine", folder=tmp_path)
    assert "does not exist" in refusal("~/nowhere-at-all")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "is not a model: no config.json" in refusal(str(tmp_path))


def test_a_folder_without_weights(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    assert "holds no weights" in refusal(str(tmp_path / "m"))


@pytest.mark.parametrize("keep", [0, 5, 2000])
def test_truncated_weights(tmp_path: Path, keep: int) -> None:
    models.tiny_llama(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "are its files whole?" in refusal(str(tmp_path / "m"))


def test_a_malformed_configuration(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")
    assert str(tmp_path / "m") in refusal(str(tmp_path / "m"))


def test_weights_of_another_model_are_not_filled_with_random_numbers(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    message = refusal(str(tmp_path / "m"))
    assert "lack 1 that its config.json calls for" in message
    assert "layers.1.mlp.down_proj" in message


def test_weights_of_another_shape(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 64}))
    assert str(tmp_path / "m") in refusal(str(tmp_path / "m"))


def test_a_hub_name_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("someone/some-model-that-is-not-cached")
    assert "'someone/some-model-that-is-not-cached' from the Hugging Face hub" in message
    assert "network" in message
    assert "hf auth login" in message


def test_a_gated_hub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    message = refusal("someone/gated")
    assert "gated repo" in message
    assert "accept its licence and `hf auth login`" in message


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense:x"])
def test_a_device_that_is_not_here(llama_folder: Path, device: str) -> None:
    assert f"device {device!r} is not available" in refusal(str(llama_folder), device=device)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path / "m")
    first = LanguageModel.load(str(folder), device="cpu").fingerprint
    (folder / "README.md").write_text("no part of the model")
    assert LanguageModel.load(str(folder), device="cpu").fingerprint == first
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert LanguageModel.load(str(folder), device="cpu").fingerprint != first


def test_names_of_one_model() -> None:
    assert official_name("gpt2-small") == "gpt2"
    assert same_model("gpt2-small", "openai-community/gpt2")
    assert same_model("google/gemma-2-2b", "Gemma-2-2B")
    assert not same_model("google/gemma-2-2b", "google/gemma-2-2b-it")


def test_a_model_from_a_folder_may_have_any_name(llama: LanguageModel) -> None:
    assert llama.is_called("google/gemma-2-2b")


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys, safesail.language_model.names as n, safesail.language_model;"
        "n.same_model('a', 'b'); print('torch' in sys.modules)"
    )
    answer = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert answer.strip() == "False"
