"""Collected contexts and statistics against each document encoded alone."""

from __future__ import annotations

import random
from typing import Any

import models
import numpy as np
import pytest
import torch

from safesail.contexts import Contexts, collect_contexts
from safesail.language_model import LanguageModel, TokenizedText
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import CollectionSettings
from safesail.tables import CONTEXTS

WORDS = ["the", "cat", "sat", "mat,", "small", "boat", "sailed", "she", "letter", "1234", "[ok] 猫"]
DOCUMENTS = 60
TOLERANCE = 1e-4
Q999 = 1.5


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    generator = random.Random(0)
    return {
        f"d{n}": " ".join(generator.choices(WORDS, k=generator.randint(1, 60)))
        for n in range(DOCUMENTS)
    }


@pytest.fixture(scope="module")
def texts(llama: LanguageModel, documents: dict[str, str]) -> list[TokenizedText]:
    pieces = [llama.tokenize(t, document=d, prepend_bos=True) for d, t in documents.items()]
    return [piece for of in pieces for piece in of]


@pytest.fixture(scope="module", params=["jumprelu", "topk"])
def sae(
    request: pytest.FixtureRequest, llama: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> SparseAutoencoder:
    folder = tmp_path_factory.mktemp("saes")
    models.random_sae(folder / "s", request.param)
    (candidate,) = find_candidates(["s"], folder)
    loaded = SparseAutoencoder.load(candidate, device="cpu")
    loaded.check_fits(llama)
    return loaded


@pytest.fixture(scope="module")
def naive(
    llama: LanguageModel, sae: SparseAutoencoder, texts: list[TokenizedText]
) -> dict[tuple[str, int], np.ndarray]:
    """By piece: activations of all features at its tokens, run alone and encoded in full."""
    found = {}
    for text in texts:
        (batch,) = llama.batches([text], prepend_bos=True)
        hidden = llama.activations(batch, [sae.hook_point])[sae.hook_point][0]
        encoded = sae.encode(hidden).clone()
        encoded[torch.isin(batch.token_ids[0], torch.tensor(llama.tokenizer.all_special_ids))] = 0
        found[text.document, text.start] = encoded[1:].numpy()
    return found


@pytest.fixture(scope="module")
def features(naive: dict[tuple[str, int], np.ndarray]) -> list[int]:
    """Six features that fire now and then."""
    share = (np.concatenate(list(naive.values())) > 0).mean(0)
    return [int(f) for f in np.flatnonzero((share > 0.03) & (share < 0.4))[:6]]


def collect(
    llama: LanguageModel,
    sae: SparseAutoencoder,
    features: list[int],
    texts: list[TokenizedText],
    sample: list[TokenizedText],
    **settings: Any,
) -> Contexts:
    scale = dict.fromkeys(features, Q999)
    return collect_contexts(llama, sae, scale, texts, sample, CollectionSettings(**settings))


@pytest.fixture(scope="module")
def collected(
    llama: LanguageModel, sae: SparseAutoencoder, features: list[int], texts: list[TokenizedText]
) -> Contexts:
    assert len(features) == 6
    return collect(llama, sae, features, texts, texts)


def test_activations_are_those_of_the_document_alone(
    collected: Contexts, naive: dict[tuple[str, int], np.ndarray], texts: list[TokenizedText]
) -> None:
    pieces = {(text.document, text.start): text for text in texts}
    rows = collected.table.to_pylist()
    assert collected.table.schema.equals(CONTEXTS.arrow())
    assert {row["kind"] for row in rows} == {"active", "silent", "hard_silent"}
    for row in rows:
        length = len(row["tokens"])
        assert len(row["token_ids"]) == len(row["activations"]) == length <= 32
        place = max(p for p in pieces if p[0] == row["document"] and p[1] <= row["start"])
        span = slice(row["start"] - place[1], row["start"] - place[1] + length)
        assert row["token_ids"] == pieces[place].token_ids[span]
        assert row["tokens"] == pieces[place].token_strings[span]
        expected = naive[place][span, row["feature"]]
        np.testing.assert_allclose(row["activations"], expected, atol=TOLERANCE)
        assert row["peak"] == max(row["activations"])
        assert row["activations"][row["peak_at"]] == row["peak"]
        assert (row["peak"] > 0) == (row["kind"] == "active") == (row["level"] > 0)
        assert row["level"] == np.clip(np.ceil(10 * row["peak"] / Q999), row["peak"] > 0, 10)


def test_token_strings_are_the_text(
    llama: LanguageModel,
    sae: SparseAutoencoder,
    features: list[int],
    texts: list[TokenizedText],
    documents: dict[str, str],
) -> None:
    """With room for every window, the windows of a document joined are the document."""
    room = dict.fromkeys(("per_level", "silent", "hard_silent"), 10_000)
    table = collect(llama, sae, features[:2], texts, texts, **room).table
    for feature in features[:2]:
        windows: dict[str, dict[int, str]] = {}
        for row in table.to_pylist():
            if row["feature"] == feature and row["sample"] == "random":
                assert row["weight"] == 1
                windows.setdefault(row["document"], {})[row["start"]] = "".join(row["tokens"])
        joined = {d: "".join(of[start] for start in sorted(of)) for d, of in windows.items()}
        assert joined == documents


def test_statistics_are_direct_counts(
    collected: Contexts,
    naive: dict[tuple[str, int], np.ndarray],
    features: list[int],
    sae: SparseAutoencoder,
) -> None:
    together = np.concatenate(list(naive.values()))
    directions = sae.decoder_directions.numpy()
    for feature in features:
        values, found = together[:, feature], collected.statistics[feature]
        assert found["tokens_seen"] == len(together)
        assert found["fired"] == pytest.approx((values > 0).sum(), abs=1)
        assert found["density"] == found["fired"] / len(together)
        assert found["max_activation"] == pytest.approx(values.max(), abs=TOLERANCE)
        assert sum(found["histogram_counts"]) == found["fired"]
        edges = np.array(found["histogram_edges"])
        counts, _ = np.histogram(values[values > 0], edges)
        assert np.abs(counts - found["histogram_counts"]).sum() <= 2
        assert edges[1:] / edges[:-1] == pytest.approx(np.full(len(edges) - 1, 2**0.5))
        cosines = directions @ directions[feature]
        cosines[feature] = -2
        assert found["nearest_features"] == np.argsort(-cosines)[:10].tolist()
        assert len(found["top_logits"]) == len(found["bottom_logits"]) == 10


def test_order_of_the_texts_changes_nothing(
    llama: LanguageModel,
    sae: SparseAutoencoder,
    features: list[int],
    texts: list[TokenizedText],
    collected: Contexts,
) -> None:
    """Other neighbours in other batches: the same windows, activations within rounding."""
    mixed = texts[:]
    random.Random(1).shuffle(mixed)
    again = collect(llama, sae, features, mixed, texts)
    key = ("feature", "document", "start", "kind", "sample", "level", "split")

    def by_key(found: Contexts) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {tuple(row[name] for name in key): row for row in found.table.to_pylist()}

    first, second = by_key(collected), by_key(again)
    # A token whose activation lies within rounding of the threshold may fall either way.
    assert len(first.keys() ^ second.keys()) <= 0.01 * len(first)
    for shared in first.keys() & second.keys():
        np.testing.assert_allclose(
            first[shared]["activations"], second[shared]["activations"], atol=TOLERANCE
        )


def test_features_do_not_depend_on_their_company(
    llama: LanguageModel,
    sae: SparseAutoencoder,
    features: list[int],
    texts: list[TokenizedText],
    collected: Contexts,
) -> None:
    alone = collect(llama, sae, features[3:4], texts, texts)
    windows = [
        {
            (row["document"], row["start"], row["sample"])
            for row in found.table.to_pylist()
            if row["feature"] == features[3]
        }
        for found in (alone, collected)
    ]
    assert windows[0] == windows[1] != set()


def test_a_dead_feature_has_no_contexts(
    llama: LanguageModel,
    sae: SparseAutoencoder,
    naive: dict[tuple[str, int], np.ndarray],
    features: list[int],
    texts: list[TokenizedText],
) -> None:
    dead = int(np.flatnonzero(~(np.concatenate(list(naive.values())) > 0).any(0))[0])
    found = collect(llama, sae, [dead, features[0]], texts, texts)
    assert found.statistics[dead]["status"] == "dead"
    assert found.statistics[dead]["histogram_counts"] == []
    assert set(found.table["feature"].to_pylist()) == {features[0]}
    assert found.statistics[features[0]]["status"] == "collected"


def test_too_few_windows_are_said(
    llama: LanguageModel, sae: SparseAutoencoder, features: list[int], texts: list[TokenizedText]
) -> None:
    found = collect(llama, sae, features, texts[:4], texts)
    statuses = {of["status"] for of in found.statistics.values()}
    assert statuses <= {"too_few_contexts", "dead"}
    assert found.table.num_rows
