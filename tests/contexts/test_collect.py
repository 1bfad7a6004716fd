"""Collected contexts against TransformerLens and SAELens, document by document."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from collected import stopped_after
from contexts.conftest import NO_SINKS, passing
from planted_contexts import Planted, brute_force
from sae_lens import SAE
from transformer_lens.model_bridge import TransformerBridge

from safesail.contexts import Contexts, SketchSettings, Target, collect_contexts
from safesail.corpus import Corpus, Document
from safesail.errors import CandidateError, ModelError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import SparseAutoencoder
from safesail.study import CollectionSettings
from safesail.tables import CONTEXTS

TOLERANCE = 1e-4
SETTINGS = CollectionSettings(
    top=4, per_level=2, silent=6, hard_silent=6, tokens_per_batch=256, chunk_characters=3000
)
SITES = ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post", "blocks.2.hook_resid_pre")
Make = Callable[..., SparseAutoencoder]


def collect(
    model: LanguageModel,
    targets: dict[SparseAutoencoder, list[int]],
    corpus: Corpus,
    settings: CollectionSettings = SETTINGS,
    **given: Any,
) -> dict[str, Contexts]:
    run = passing(model, targets, settings)
    work = collect_contexts(run, corpus, settings, **{"max_tokens": 10**9, **given})
    return {
        t.sae.name: Contexts.of(t, work.sketches[t.sae.name], settings, model) for t in run.targets
    }


@pytest.fixture(scope="module")
def saes(sae_of: Make) -> list[SparseAutoencoder]:
    """Of three architectures and layers; TopK needs all features at once."""
    return [sae_of(a, at) for a, at in zip(("jumprelu", "topk", "gated"), SITES, strict=True)]


@pytest.fixture(scope="module")
def reference(
    llama: LanguageModel, documents: list[Document], saes: list[SparseAutoencoder]
) -> dict[str, dict[tuple[str, int], np.ndarray]]:
    """By SAE and piece: SAELens' own encode on TransformerLens' own cache, one text at a time."""
    assert llama.folder is not None
    bridge = TransformerBridge.boot_transformers(str(llama.folder), device="cpu")
    theirs = {sae.name: SAE.load_from_disk(sae.source, device="cpu") for sae in saes}
    found: dict[str, dict[tuple[str, int], np.ndarray]] = {sae.name: {} for sae in saes}
    for document in documents:
        for piece in llama.tokenize(
            document.text, document=document.id, prepend_bos=True, context_size=64
        ):
            ids = torch.tensor([[llama.bos_token_id, *piece.token_ids]])
            with torch.inference_mode():
                _, cache = bridge.run_with_cache(ids, names_filter=list(SITES))
                for sae in saes:
                    encoded = theirs[sae.name].encode(cache[sae.hook_point][0, 1:].clone())
                    special = torch.isin(ids[0, 1:], torch.tensor(llama.tokenizer.all_special_ids))
                    encoded[special] = 0
                    found[sae.name][piece.document, piece.start] = encoded.numpy()
    return found


@pytest.fixture(scope="module")
def features(reference: dict[str, dict[tuple[str, int], np.ndarray]]) -> dict[str, list[int]]:
    """Up to eight features of each that fire now and then."""
    found = {}
    for name, pieces in reference.items():
        share = (np.concatenate(list(pieces.values())) > 0).mean(0)
        found[name] = [int(f) for f in np.flatnonzero((share > 0.02) & (share < 0.5))[:8]]
    return found


@pytest.fixture(scope="module")
def collected(
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    corpus: Corpus,
) -> dict[str, Contexts]:
    return collect(llama, {sae: features[sae.name] for sae in saes}, corpus)


def test_activations_are_saelens_own_on_transformerlens_own_cache(
    collected: dict[str, Contexts],
    reference: dict[str, dict[tuple[str, int], np.ndarray]],
    record_property: Any,
) -> None:
    """Every row of three SAEs at three layers; tokens on a threshold are counted, not hidden."""
    compared = on_threshold = 0
    for name, found in collected.items():
        table = found.table()
        assert table.schema.equals(CONTEXTS.arrow())
        rows = table.to_pylist()
        assert {row["kind"] for row in rows} >= {"active", "hard_silent"}
        for row in rows:
            start = max(s for d, s in reference[name] if d == row["document"] and s <= row["start"])
            span = slice(row["start"] - start, row["start"] - start + len(row["tokens"]))
            expected = reference[name][row["document"], start][span, row["feature"]]
            differs = np.abs(np.array(row["activations"]) - expected) > TOLERANCE
            # A pre-activation within rounding of its threshold: zero here, not zero there.
            flipped = differs & ((expected == 0) != (np.array(row["activations"]) == 0))
            assert not (differs & ~flipped).any()
            compared += len(expected)
            on_threshold += int(flipped.sum())
            assert row["peak"] == max(row["activations"])
            assert row["activations"][row["peak_at"]] == row["peak"]
            assert (row["peak"] > 0) == (row["kind"] == "active") == (row["level"] > 0)
    record_property("tokens compared, on a threshold", (compared, on_threshold))
    assert compared > 12_000
    assert on_threshold <= 2


def test_chosen_windows_are_those_of_a_recomputation_from_all_activations(
    collected: dict[str, Contexts],
    reference: dict[str, dict[tuple[str, int], np.ndarray]],
    features: dict[str, list[int]],
    documents: list[Document],
    llama: LanguageModel,
) -> None:
    texts = [
        piece
        for d in documents
        for piece in llama.tokenize(d.text, document=d.id, prepend_bos=True, context_size=64)
    ]
    for name, found in collected.items():
        activations = [reference[name][t.document, t.start][:, features[name]] for t in texts]
        content = [np.ones(len(t.token_ids), dtype=bool) for t in texts]
        known = brute_force(
            Planted(texts, activations, content),
            SketchSettings.of(SETTINGS),
            SETTINGS,
            features[name],
        )
        expected = Counter(
            (feature, split, kind, level, sample, w["document"], w["start"])
            for feature, of in known.items()
            for split, kind, level, sample, _, w in of["rows"]
        )
        keys = ("feature", "split", "kind", "level", "sample", "document", "start")
        mine = Counter(tuple(row[key] for key in keys) for row in found.table().to_pylist())
        # Two computations differ in the last digits, and a peak may lie on a bin's edge.
        assert (mine - expected).total() + (expected - mine).total() <= 0.01 * mine.total()
        assert mine.total() > 40


def test_strings_are_the_text(
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    corpus: Corpus,
) -> None:
    """With room for every window, the windows of a document joined are the document."""
    room = dict.fromkeys(("per_level", "silent", "hard_silent"), 10_000)
    settings = SETTINGS.model_copy(update=room)
    sae = saes[0]
    table = collect(llama, {sae: features[sae.name][:1]}, corpus, settings)[sae.name].table()
    windows: dict[str, dict[int, str]] = {}
    for row in table.to_pylist():
        if row["sample"] == "random":
            assert row["weight"] == 1
            windows.setdefault(row["document"], {})[row["start"]] = "".join(row["tokens"])
    joined = {d: "".join(of[start] for start in sorted(of)) for d, of in windows.items()}
    assert joined == {document.id: document.text for document in corpus}


def test_statistics_are_direct_counts(
    collected: dict[str, Contexts],
    reference: dict[str, dict[tuple[str, int], np.ndarray]],
    features: dict[str, list[int]],
    saes: list[SparseAutoencoder],
) -> None:
    for sae in saes:
        together = np.concatenate(list(reference[sae.name].values()))
        directions = sae.decoder_directions.numpy()
        for feature in features[sae.name]:
            values, found = together[:, feature], collected[sae.name].statistics[feature]
            assert found["tokens_seen"] == len(together)
            assert found["fired"] == pytest.approx((values > 0).sum(), abs=1)
            assert found["density"] == found["fired"] / len(together)
            assert found["max_activation"] == pytest.approx(values.max(), abs=TOLERANCE)
            cosines = directions @ directions[feature]
            cosines[feature] = -2
            assert found["nearest_features"] == np.argsort(-cosines)[:10].tolist()
            assert len(found["top_logits"]) == len(found["bottom_logits"]) == 10
            assert found["status"] == "collected"


def keys_of(found: Contexts) -> dict[tuple[Any, ...], list[float]]:
    names = ("feature", "document", "start", "kind", "sample", "level", "split")
    rows = found.table().to_pylist()
    return {tuple(row[name] for name in names): row["activations"] for row in rows}


@pytest.mark.parametrize("change", ["order", "batch", "chunk", "memory"])
def test_order_batches_chunks_and_memory_change_nothing(
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    documents: list[Document],
    collected: dict[str, Contexts],
) -> None:
    """The same windows, activations within rounding."""
    mixed = documents[:]
    settings = SETTINGS
    if change == "order":
        random.Random(1).shuffle(mixed)
    elif change == "batch":
        settings = SETTINGS.model_copy(update={"tokens_per_batch": 100})
    elif change == "chunk":
        settings = SETTINGS.model_copy(update={"chunk_characters": 10**6})
    else:
        # Room for the activations of some 100 tokens: batches are taken in by parts.
        monkeypatch.setattr("safesail.contexts._pass._ACTIVATIONS", 4 * 8 * 100)
    sae = saes[0]
    again = collect(llama, {sae: features[sae.name]}, Corpus((), Path(), mixed), settings)
    first, second = keys_of(collected[sae.name]), keys_of(again[sae.name])
    # A token whose activation lies within rounding of a threshold may fall either way.
    assert len(first.keys() ^ second.keys()) <= 0.01 * len(first)
    for shared in first.keys() & second.keys():
        np.testing.assert_allclose(first[shared], second[shared], atol=TOLERANCE)


def test_features_and_saes_do_not_depend_on_their_company(
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    corpus: Corpus,
    collected: dict[str, Contexts],
) -> None:
    sae = saes[2]
    one = features[sae.name][3]
    alone = keys_of(collect(llama, {sae: [one]}, corpus)[sae.name])
    together = {k: v for k, v in keys_of(collected[sae.name]).items() if k[0] == one}
    assert alone.keys() == together.keys() != set()
    for key, activations in alone.items():
        np.testing.assert_allclose(activations, together[key], atol=TOLERANCE)


def test_a_dead_feature_has_no_contexts_but_a_count_of_tokens(
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    reference: dict[str, dict[tuple[str, int], np.ndarray]],
    corpus: Corpus,
) -> None:
    sae = saes[0]
    together = np.concatenate(list(reference[sae.name].values()))
    dead = int(np.flatnonzero(~(together > 0).any(0))[0])
    found = collect(llama, {sae: [dead, features[sae.name][0]]}, corpus)[sae.name]
    assert found.statistics[dead]["status"] == "dead"
    assert found.statistics[dead]["tokens_seen"] == len(together)
    assert found.statistics[dead]["histogram_counts"] == []
    assert set(found.table()["feature"].to_pylist()) == {features[sae.name][0]}
    alone = collect(llama, {sae: [dead]}, corpus)[sae.name]
    assert alone.table().num_rows == 0


def test_too_few_windows_are_said(
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    documents: list[Document],
) -> None:
    sae = saes[0]
    found = collect(llama, {sae: features[sae.name]}, Corpus((), Path(), documents[:4]))[sae.name]
    assert {of["status"] for of in found.statistics.values()} <= {"too_few_contexts", "dead"}
    assert found.table().num_rows


@pytest.mark.parametrize("limit", [1, 700, 2500])
def test_the_limit_on_tokens_is_kept(
    limit: int,
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    corpus: Corpus,
) -> None:
    """Exactly within the first chunk but for the last text; beyond it, by the first one's rate."""
    sae = saes[0]
    found = collect(llama, {sae: features[sae.name]}, corpus, max_tokens=limit)[sae.name]
    seen = found.statistics[features[sae.name][0]]["tokens_seen"]
    assert limit <= seen < limit + 64 if limit <= 700 else abs(seen / limit - 1) < 0.1


def test_the_limit_holds_where_the_beginning_is_not_typical(
    llama: LanguageModel, saes: list[SparseAutoencoder], features: dict[str, list[int]]
) -> None:
    """Few tokens a character in the first chunks, many in the others."""
    easy = [
        Document(f"e{n}", f"{n} the small boat sailed over the cold sea" * 5) for n in range(40)
    ]
    hard = [Document(f"h{n}", f"{n} XQZ#@!" * 30) for n in range(200)]
    sae = saes[0]
    for order in (easy + hard, hard + easy):
        found = collect(
            llama, {sae: features[sae.name]}, Corpus((), Path(), order), max_tokens=15_000
        )
        seen = found[sae.name].statistics[features[sae.name][0]]["tokens_seen"]
        assert abs(seen / 15_000 - 1) < 0.05


@pytest.mark.parametrize("size", [60, 900])
def test_a_run_goes_on_in_batches_of_another_size(
    size: int,
    llama: LanguageModel,
    saes: list[SparseAutoencoder],
    features: dict[str, list[int]],
    corpus: Corpus,
    collected: dict[str, Contexts],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every text once, though the chunk under way was begun in other batches, twice."""
    sae = saes[0]
    for number, limit in enumerate((3, 2)):
        settings = SETTINGS.model_copy(
            update={"tokens_per_batch": (256, 150)[number], "checkpoint_seconds": 0.0}
        )
        with stopped_after(monkeypatch, limit):
            run = passing(llama, {sae: features[sae.name]}, settings)
            collect_contexts(run, corpus, settings, max_tokens=10**9, plan="p", folder=tmp_path)
    told: list[str] = []
    settings = SETTINGS.model_copy(update={"tokens_per_batch": size})
    found = collect(
        llama, {sae: features[sae.name]}, corpus, settings,
        plan="p", folder=tmp_path, tell=told.append,
    )[sae.name]  # fmt: skip
    assert any(f"of {size} tokens now, before of 150" in line for line in told)
    expected = collected[sae.name]
    one = features[sae.name][0]
    assert found.statistics[one]["tokens_seen"] == expected.statistics[one]["tokens_seen"]
    first, second = keys_of(expected), keys_of(found)
    assert len(first.keys() ^ second.keys()) <= 0.01 * len(first)


def test_odd_documents(
    llama: LanguageModel, saes: list[SparseAutoencoder], features: dict[str, list[int]]
) -> None:
    """One token; two texts of one id; far longer than a context."""
    sae = saes[0]
    odd = [
        Document("one", "a"),
        Document("twice", "the cat sat"),
        Document("twice", "the cat sat on the mat, small boat"),
        Document("long", "the small boat sailed " * 2000),
    ]
    found = collect(llama, {sae: features[sae.name]}, Corpus((), Path(), odd))[sae.name]
    pieces = [
        piece for d in odd for piece in llama.tokenize(d.text, document=d.id, prepend_bos=True)
    ]
    seen = found.statistics[features[sae.name][0]]["tokens_seen"]
    assert seen == sum(len(piece.token_ids) for piece in pieces)
    starts = {(p.document, p.key): p for p in pieces}
    assert len(starts) == 4  # the two of one id are told apart
    for row in found.table().to_pylist():
        assert any(d.id == row["document"] and "".join(row["tokens"]) in d.text for d in odd)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_that_is_not_finite_is_refused(
    value: float, sae_of: Make, tmp_path: Path, documents: list[Document]
) -> None:
    """Such a token is no attention sink, though its norm is not below the threshold."""
    model = LanguageModel.load(str(models.tiny_llama(tmp_path / "model")), device="cpu")
    (token,) = model.tokenizer(" cat", add_special_tokens=False)["input_ids"][:1]
    model._forward.fast._model.get_input_embeddings().weight.data[token] = value
    with pytest.raises(ModelError, match=r"batch \d+ of chunk 0: .*resid_post.*document 'd\d+'"):
        collect(model, {sae_of("standard"): [2, 3]}, Corpus((), Path(), documents))


def test_an_sae_that_is_not_finite_is_refused(
    llama: LanguageModel, sae_of: Make, documents: list[Document]
) -> None:
    sae = sae_of("standard")
    sae._sae.b_enc.data[3] = torch.nan
    with pytest.raises(CandidateError, match=r"layer 1.*batch 1 of chunk 0 \(documents d"):
        collect(llama, {sae: [2, 3]}, Corpus((), Path(), documents))


def test_targets_that_read_differently_share_no_pass(llama: LanguageModel, sae_of: Make) -> None:
    one, other = sae_of("standard"), sae_of("standard")
    other.context_size = 16
    with pytest.raises(ValueError, match="share no pass"):
        passing(llama, {one: [1], other: [1]}, SETTINGS)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((), "no features of SAE .*: give at least one"),
        ((-1, 3), r"has no feature -1: its features are 0 to \d+"),
        ((3, 10**6), "has no feature 1000000: its features are 0 to"),
        ((3, 2), "must ascend"),
        ((3, 3), "must ascend"),
    ],
)
def test_features_that_there_cannot_be(
    sae_of: Make, features: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Target(sae_of("standard"), features, NO_SINKS)


def test_halves_of_surrogate_pairs_from_python_are_replaced(
    llama: LanguageModel, saes: list[SparseAutoencoder], features: dict[str, list[int]]
) -> None:
    sae = saes[0]
    odd = [Document(f"\udc00{n}", f"{n} the cat \ud83d sat on the mat") for n in range(20)]
    found = collect(llama, {sae: features[sae.name]}, Corpus((), Path(), odd))[sae.name]
    rows = found.table().to_pylist()
    assert {row["document"] for row in rows} <= {f"\ufffd{n}" for n in range(20)}
    assert any("\ufffd" in "".join(row["tokens"]) for row in rows)
