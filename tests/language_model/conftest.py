from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest

from safesail.language_model import LanguageModel

FAMILIES = {
    "llama": models.tiny_llama,
    "qwen2": models.tiny_qwen2,
    "qwen3": models.tiny_qwen3,
    "gemma2": models.tiny_gemma2,
    "gemma3": models.tiny_gemma3,
    "gpt2": models.tiny_gpt2,
    "gpt_neox": models.tiny_gpt_neox,
}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of each family."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="session")
def model(folder: Path) -> LanguageModel:
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    """The same model as transformers runs it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> LanguageModel:
    return LanguageModel.load(str(llama_folder), device="cpu")
