"""The committed lab: its files load, are small, and its truth can be found by its autoencoders."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score

from safesail.lab import contrast_pairs_file, lab_folder
from safesail.lab.activations import content_mask, read_hook_points, tokenize
from safesail.lab.assets import read_heldout, read_pairs
from safesail.lab.autoencoders import RECIPES, load_autoencoder, untrained_autoencoder
from safesail.lab.documents import Document, bare_clauses
from safesail.lab.language_model import load_language_model
from safesail.lab.lexicon import load_lexicon

LAB = lab_folder()
FIGURES = json.loads((LAB / "figures.json").read_text("utf-8"))
CONCEPTS = list(load_lexicon().concepts)
BEST = FIGURES["best_autoencoder"]


@pytest.fixture(scope="module")
def heldout() -> list[Document]:
    return read_heldout(LAB / "heldout.parquet")


@pytest.fixture(scope="module")
def precision(heldout: list[Document]) -> dict[str, dict[str, float]]:
    """Best-feature AP by concept of the best candidate and of an untrained one, by scikit-learn.

    The features that the figures name are taken; a clause's score is computed here anew.
    """
    model, tokenizer = load_language_model(LAB / "model")
    hook = RECIPES[BEST].hook_point
    owners: list[str] = []
    scores: dict[str, list[np.ndarray]] = {"trained": [], "untrained": []}
    judged: dict[str, tuple[Any, Any]] = {
        "trained": (load_autoencoder(LAB / "saes" / BEST), FIGURES["autoencoders"][BEST]),
        "untrained": (
            untrained_autoencoder(RECIPES[BEST], model.config.hidden_size),
            FIGURES["untrained_autoencoder"],
        ),
    }
    for document in heldout:
        table = tokenize(tokenizer, [document.text])
        hidden = read_hook_points(model, table, [hook])[hook]
        with torch.inference_mode():
            codes = {
                name: sae.encode(hidden)[:, list(figures["best_feature"].values())].numpy()
                for name, (sae, figures) in judged.items()
            }
        for clause in document.clauses:
            inside = (clause.start <= table.last) & (table.last < clause.end)
            owners.append(clause.concept.split("/")[0])
            for name, values in codes.items():
                scores[name].append(values[inside].max(axis=0, initial=0.0))
    return {
        name: {
            concept: float(
                average_precision_score(np.array(owners) == concept, np.array(rows)[:, column])
            )
            for column, concept in enumerate(CONCEPTS)
        }
        for name, rows in scores.items()
    }


def test_the_lab_is_small_and_holds_no_pickle() -> None:
    files = [path for path in LAB.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".parquet", ".json"}


def test_transformers_and_transformer_lens_load_the_model_alike() -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = LAB / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert len(tokenizer) == model.config.vocab_size
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [0, 1, 2]
    text = "The clerk shot the guard near the harbour."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] > 2, "no special token is added"
    assert tokenizer.decode(ids) == text
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    tokens = torch.tensor([[0, *ids]])
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(tokens)
        assert torch.allclose(bridge(tokens), model(tokens).logits, atol=1e-4)
    table = tokenize(tokenizer, [text])
    hooks = ["blocks.2.hook_resid_post", "blocks.2.hook_mlp_out"]
    for hook, hidden in read_hook_points(load_language_model(folder)[0], table, hooks).items():
        assert torch.allclose(hidden, cache[hook][0, 1:], atol=1e-4), hook


def test_the_model_beats_a_bigram_table() -> None:
    figures = FIGURES["language_model"]
    assert 1_000_000 <= figures["parameters"] <= 2_000_000
    assert figures["heldout_cross_entropy"] < 0.7 * figures["bigram_cross_entropy"]
    assert figures["bigram_cross_entropy"] < figures["unigram_cross_entropy"]


def test_the_stated_cross_entropy_is_that_of_the_committed_model(heldout: list[Document]) -> None:
    model, tokenizer = load_language_model(LAB / "model")
    losses = []
    for document in heldout[:150]:
        ids = torch.tensor([[0, *tokenizer(document.text)["input_ids"], 1]])
        with torch.inference_mode():
            losses.append(model(ids, labels=ids).loss.item())
    stated = FIGURES["language_model"]["heldout_cross_entropy"]
    assert np.mean(losses) == pytest.approx(stated, abs=0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_candidates_load_and_are_as_sparse_as_they_say(name: str, heldout: list[Document]) -> None:
    recipe = RECIPES[name]
    autoencoder = load_autoencoder(LAB / "saes" / name)
    assert autoencoder.W_dec.dtype == torch.float32
    assert autoencoder.W_dec.shape == (1024, 128)
    metadata = autoencoder.cfg.metadata
    assert (metadata.hook_name, metadata.prepend_bos) == (recipe.hook_point, True)
    assert autoencoder.cfg.normalize_activations == "none"
    model, tokenizer = load_language_model(LAB / "model")
    table = tokenize(tokenizer, [document.text for document in heldout[:100]])
    hidden = read_hook_points(model, table, [recipe.hook_point])[recipe.hook_point]
    hidden = hidden[content_mask(hidden)]
    with torch.inference_mode():
        codes = autoencoder.encode(hidden)
        error = (hidden - autoencoder.decode(codes)).pow(2).sum()
    figures = FIGURES["autoencoders"][name]
    l0 = float((codes > 0).sum(1).float().mean())
    assert l0 == pytest.approx(figures["l0"], rel=0.1)
    if recipe.architecture == "topk":
        assert l0 <= recipe.sparsity
    fvu = float(error / (hidden - hidden.mean(0)).pow(2).sum())
    assert fvu == pytest.approx(figures["fvu"], rel=0.15)
    assert fvu < 0.6


def test_the_folders_are_what_the_command_makes_of_the_recipes() -> None:
    folders = {path.name for path in (LAB / "saes").iterdir()}
    assert folders == set(RECIPES)
    assert len(folders) >= 12
    for name, recipe in RECIPES.items():
        metadata = json.loads((LAB / "saes" / name / "cfg.json").read_text("utf-8"))["metadata"]
        made = metadata["safesail_settings"]
        assert {key: made[key] for key in asdict(recipe)} == asdict(recipe), name
        assert metadata["safesail_tokens"] > 300_000
        # At other texts than those of figures.json, of the weights before they were halved.
        stated = FIGURES["autoencoders"][name]
        assert metadata["safesail_figures"]["l0"] == pytest.approx(stated["l0"], rel=0.1)
        assert metadata["safesail_figures"]["fvu"] == pytest.approx(stated["fvu"], rel=0.2)


def test_candidates_differ() -> None:
    means = [entry["mean_average_precision"] for entry in FIGURES["autoencoders"].values()]
    assert max(means) - min(means) > 0.1
    fvu = [FIGURES["autoencoders"][f"layer2-resid-topk{k}"]["fvu"] for k in (4, 8, 16, 32, 64)]
    assert fvu == sorted(fvu, reverse=True)
    assert fvu[0] > 4 * fvu[-1]


@pytest.mark.proof
def test_some_feature_finds_most_concepts(precision: dict[str, dict[str, float]]) -> None:
    trained = precision["trained"]
    assert sum(value >= 0.7 for value in trained.values()) >= 6, trained
    assert min(trained.values()) < 0.99, "a lab without errors tests nothing"
    stated = FIGURES["autoencoders"][BEST]["average_precision"]
    for concept, value in trained.items():
        assert value == pytest.approx(stated[concept], abs=0.02), concept


@pytest.mark.proof
def test_training_is_what_finds_them(precision: dict[str, dict[str, float]]) -> None:
    trained, untrained = (np.mean(list(precision[n].values())) for n in ("trained", "untrained"))
    assert trained - untrained > 0.2


def test_word_lists_do_not(heldout: list[Document]) -> None:
    vocabulary = json.loads((LAB / "vocabulary.json").read_text("utf-8"))
    assert set(vocabulary) == set(CONCEPTS)
    clauses = [(d.text[c.start : c.end].lower(), c.concept) for d in heldout for c in d.clauses]
    low = 0
    for concept, words in vocabulary.items():
        pattern = re.compile("|".join(rf"\b{word}\b" for word in words["triggers"]))
        value = average_precision_score(
            np.array([path.startswith(f"{concept}/") for _, path in clauses]),
            [len(pattern.findall(text)) for text, _ in clauses],
        )
        assert value == pytest.approx(FIGURES["word_list_average_precision"][concept], abs=1e-6)
        low += value < 0.6
    assert low >= 6


def test_heldout_is_large_and_shares_nothing(heldout: list[Document]) -> None:
    counts = Counter(c.concept.split("/")[0] for d in heldout for c in d.clauses)
    assert counts.total() >= 2000
    assert min(counts[concept] for concept in CONCEPTS) >= 40
    corpus = pq.read_table(LAB / "corpus.parquet").to_pylist()
    tokenizer = load_language_model(LAB / "model")[1]
    lengths = [len(ids) for ids in tokenizer([row["text"] for row in corpus])["input_ids"]]
    assert sum(lengths) >= 260_000
    pairs = read_pairs(contrast_pairs_file())
    texts = [row["text"] for row in corpus]
    texts += [text for pair in pairs for text in (pair.positive, pair.negative)]
    # Clauses end in a full stop or comma, and so do linking words: pieces hold every bare clause.
    pieces = {
        piece.lower().rstrip(".,").removeprefix("and ")
        for text in texts
        for piece in re.split(r"(?<=[.,]) ", text)
    }
    assert len(pieces) > 15_000
    assert not pieces & bare_clauses(heldout, load_lexicon())


def test_contrast_pairs_are_many_enough() -> None:
    counts = Counter(pair.concept for pair in read_pairs(contrast_pairs_file()))
    assert set(counts) == {
        f"{name}/{child}" for name in CONCEPTS for child in load_lexicon().concepts[name].children
    }
    assert min(counts.values()) >= 14


def test_lab_folder_is_the_data_folder() -> None:
    assert Path(LAB).name == "lab"
    assert (LAB / "lexicon.json").exists()
