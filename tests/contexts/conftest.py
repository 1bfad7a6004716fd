from __future__ import annotations

import models
import pytest

from safesail.language_model import LanguageModel


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = models.tiny_llama(tmp_path_factory.mktemp("llama") / "model")
    return LanguageModel.load(str(folder), device="cpu")
