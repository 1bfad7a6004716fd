"""Training of the language model and the autoencoders, on sizes that take seconds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safesail.lab import build
from safesail.lab.activations import read_hook_points, tokenize
from safesail.lab.autoencoders import WEIGHTS_FILE, Sweep, load_autoencoder, publish
from safesail.lab.language_model import (
    BOS,
    EOS,
    LanguageModelRecipe,
    cross_entropy_per_token,
    encode_documents,
    load_language_model,
    ngram_cross_entropy,
    train_language_model,
    train_tokenizer,
)
from safesail.lab.world import World
from safesail.sparse_autoencoder import Activations, train_sae

RECIPE = LanguageModelRecipe(
    vocabulary=400, layers=2, d_model=16, heads=2, d_mlp=32, epochs=12.0, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [document.text for document in World(3).documents("train", 200)]


def test_ngram_cross_entropy_by_hand() -> None:
    """Train tokens after BOS: 3, 3, 4 of a vocabulary of 5; held-out: 3 after BOS."""
    unigram, bigram = ngram_cross_entropy([[0, 3, 3, 4]], [[0, 3]], 5)
    single = 2.5 / 5.5
    assert unigram == pytest.approx(-math.log(single))
    assert bigram == pytest.approx(-math.log((1 + 5 * single) / (1 + 5)))


def test_documents_stand_between_bos_and_eos(texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, RECIPE)
    short, cut = (encode_documents(tokenizer, texts[:5], context) for context in (500, 20))
    for text, ids, head in zip(texts, short, cut, strict=False):
        assert (ids[0], ids[-1]) == (BOS, EOS)
        assert tokenizer.decode(ids[1:-1]) == text
        assert head == ids[:20]


def test_training_learns_and_repeats(texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, RECIPE)
    documents = encode_documents(tokenizer, texts, RECIPE.context)
    train, heldout = documents[:160], documents[160:]
    unigram, _ = ngram_cross_entropy(train, heldout, RECIPE.vocabulary)
    first, second = (train_language_model(train, RECIPE, seed=4) for _ in range(2))
    losses = [cross_entropy_per_token(model, heldout) for model in (first, second)]
    assert losses[0] < unigram
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_hidden_states_do_not_depend_on_the_batch(texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, RECIPE)
    documents = encode_documents(tokenizer, texts[:64], RECIPE.context)
    model = train_language_model(documents, RECIPE, seed=4)
    hooks = ["blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"]
    table = tokenize(tokenizer, texts[:7])
    together = read_hook_points(model, table, hooks)
    for hook in hooks:
        alone = [
            read_hook_points(model, tokenize(tokenizer, [text]), [hook])[hook] for text in texts[:7]
        ]
        assert torch.allclose(together[hook], torch.cat(alone), atol=1e-5)
    with pytest.raises(ValueError, match="hook point"):
        read_hook_points(model, table, ["blocks.0.hook_z"])


def test_published_weights_are_halved_and_load_as_before(tmp_path: Path) -> None:
    rows = torch.randn(600, 24, generator=torch.Generator().manual_seed(0))
    sweep = Sweep((1,), "mlp_out", "batchtopk", (4,))
    (recipe,) = sweep.recipes(steps=30, seed=0, width=48)
    about = {"model_name": "elsewhere", "safesail_settings": {"model.name": "/somewhere"}}
    train_sae(recipe, Activations([rows]), rows[:50], tmp_path / "trained", about=about)
    publish(tmp_path / "trained", tmp_path / "published")
    stored = load_file(tmp_path / "published" / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    one, two = (load_autoencoder(tmp_path / name) for name in ("trained", "published"))
    for name, value in one.state_dict().items():
        assert torch.allclose(value, two.state_dict()[name], rtol=1e-3, atol=1e-4), name
    assert two.cfg.metadata.hook_name == "blocks.1.hook_mlp_out"
    assert two.cfg.metadata.model_name == "safesail-lab"
    assert "somewhere" not in (tmp_path / "published" / "cfg.json").read_text("utf-8")


def test_build_makes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command on a small size, down to the figures; `safesail train-saes` is real."""
    sizes = build.Sizes(120, 60, 60, 2, 30)
    sweep = Sweep((0, 1), "resid_post", "topk", (4,))
    monkeypatch.setattr(build, "Sizes", lambda: sizes)
    monkeypatch.setattr(build, "SWEEPS", (sweep,))
    monkeypatch.setattr(build, "LanguageModelRecipe", lambda: RECIPE)
    build.main(tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    names = {"layer0-resid-topk4", "layer1-resid-topk4"}
    assert set(figures["autoencoders"]) == names
    assert {path.name for path in (tmp_path / "saes").iterdir()} == names
    assert not (tmp_path / "study").exists()
    assert figures["best_autoencoder"] in figures["autoencoders"]
    for entry in (*figures["autoencoders"].values(), figures["untrained_autoencoder"]):
        assert len(entry["average_precision"]) == 8
        assert 0 < entry["mean_average_precision"] < 1
        assert 0 < entry["l0"] <= 4
    assert figures["language_model"]["heldout_cross_entropy"] < math.log(RECIPE.vocabulary)
    model, tokenizer = load_language_model(tmp_path / "model")
    assert model.config.num_hidden_layers == 2
    assert len(tokenizer) == RECIPE.vocabulary
    assert (tmp_path / "pairs.jsonl").read_text("utf-8").count("\n") == 48

    # A ready model is taken byte for byte, and its figures are the same.
    text = build.write_text(tmp_path / "again", sizes)
    again = build.make_model(tmp_path / "again", text, tmp_path / "model")
    assert again == pytest.approx(figures["language_model"])
    for path in (tmp_path / "model").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "model" / path.name).read_bytes()
