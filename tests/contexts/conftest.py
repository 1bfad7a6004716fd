from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import models
import pytest

from safesail.contexts import Pass, SketchSettings, Target
from safesail.corpus import Corpus, Document
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import CollectionSettings

WORDS = ["the", "cat", "sat", "mat,", "small", "boat", "sailed", "she", "letter", "1234", "[ok] 猫"]
# No token is a sink: the tiny model's norms hardly differ.
NO_SINKS = 1e9


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = models.tiny_llama(tmp_path_factory.mktemp("llama") / "model")
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    generator = random.Random(0)
    return [
        Document(f"d{n}", f"{n} " + " ".join(generator.choices(WORDS, k=generator.randint(1, 60))))
        for n in range(80)
    ]


@pytest.fixture(scope="session")
def corpus(documents: list[Document]) -> Corpus:
    return Corpus((), Path(), documents)


@pytest.fixture(scope="session")
def sae_of(
    llama: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., SparseAutoencoder]:
    """Makes a loaded SAE with random weights; `source` is its folder."""

    def make(architecture: str, hook_point: str = "blocks.1.hook_resid_post") -> SparseAutoencoder:
        folder = tmp_path_factory.mktemp("saes") / f"{architecture}-{hook_point}"
        models.random_sae(folder, architecture, hook_point=hook_point)
        (candidate,) = find_candidates([str(folder)], folder)
        sae = SparseAutoencoder.load(candidate, device="cpu")
        sae.check_fits(llama)
        return sae

    return make


def passing(
    model: LanguageModel, targets: dict[SparseAutoencoder, list[int]], settings: CollectionSettings
) -> Pass:
    return Pass(
        model,
        [Target(sae, tuple(sorted(features)), NO_SINKS) for sae, features in targets.items()],
        SketchSettings.of(settings),
    )
