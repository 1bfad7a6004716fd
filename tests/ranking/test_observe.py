"""The pass over sample and pairs against direct computation on each text alone."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._activations import SiteTokens, read_sites
from safesail.ranking._observe import Observation
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

WORDS = ["the", "cat", "sat", "mat,", "small", "boat", "sailed", "she", "letter", "1234", "[ok]"]


def load(folder: Path, model: LanguageModel) -> SparseAutoencoder:
    (candidate,) = find_candidates([str(folder)], folder.parent)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    sae.check_fits(model)
    return sae


def observe(
    model: LanguageModel,
    saes: list[SparseAutoencoder],
    sample: list[TokenizedText],
    texts: list[TokenizedText],
    pooling: str = "max",
) -> list[Observation]:
    """One pass, all SAEs together."""
    tokens = sum(len(text.token_ids) for text in sample)
    found = [
        Observation(sae, sample_tokens=tokens, texts=len(texts), pooling=pooling) for sae in saes
    ]
    sites = list({observation.site for observation in found})
    for at_sites in read_sites(
        model,
        sample,
        texts,
        sites,
        prepend_bos=saes[0].prepend_bos,
        progress=lambda items, label: items,
    ):
        for observation in found:
            observation.add(at_sites[observation.site])
    return found


def tokenized(model: LanguageModel, lengths: list[int], bos: bool) -> list[TokenizedText]:
    generator = np.random.default_rng(0)
    texts = []
    for number, length in enumerate(lengths):
        text = " ".join(generator.choice(WORDS, length))
        texts += model.tokenize(text, document=str(number), prepend_bos=bos)[:1]
    return texts


def alone(model: LanguageModel, sae: SparseAutoencoder, text: TokenizedText) -> NDArray:
    """Activations at the content tokens of one text, run by itself; no token here is a sink."""
    (batch,) = model.batches([text], prepend_bos=sae.prepend_bos)
    hidden = model.activations(batch, [sae.hook_point])[sae.hook_point][0]
    special = torch.tensor(model.tokenizer.all_special_ids)
    return sae.encode(hidden[~torch.isin(batch.token_ids[0], special)]).numpy()


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
@pytest.mark.parametrize("bos", [True, False])
def test_pooled_activations_are_those_of_each_text_alone(
    llama: LanguageModel, tmp_path: Path, pooling: str, bos: bool
) -> None:
    saes = []
    for name, hook in (("jumprelu", "blocks.0.hook_resid_post"), ("topk", "blocks.2.hook_mlp_out")):
        models.random_sae(tmp_path / name, name, hook_point=hook, metadata={"prepend_bos": bos})
        saes.append(load(tmp_path / name, llama))
    sample = tokenized(llama, [3, 9, 5, 12, 7, 7, 2, 11], bos)
    pairs = tokenized(llama, [4, 11, 1, 8, 3, 6], bos)
    found = observe(llama, saes, sample, pairs, pooling)
    pool = {"max": lambda a: a.max(0), "mean": lambda a: a.mean(0), "last": lambda a: a[-1]}
    for sae, observation in zip(saes, found, strict=True):
        for number, text in enumerate(pairs):
            naive = pool[pooling](alone(llama, sae, text))
            np.testing.assert_allclose(observation.pooled[number], naive, atol=1e-4)
        assert observation.pooled.any()
        together = np.concatenate([alone(llama, sae, text) for text in sample])
        assert observation.sample.tokens == len(together)
        assert observation.sample.fired == pytest.approx((together > 0).sum(0), abs=1)
        assert observation.sample.q999() == pytest.approx(together.max(0), abs=1e-4)
        on_pairs = np.concatenate([alone(llama, sae, text) for text in pairs])
        assert observation.pairs.tokens == len(on_pairs)
        assert observation.pairs.l0 == pytest.approx((on_pairs > 0).sum(1).mean(), abs=0.1)
        assert observation.pairs.dead_share == pytest.approx(
            (on_pairs <= 0).all(0).mean(), abs=0.02
        )


def test_special_tokens_and_sinks_do_not_count(llama: LanguageModel, tmp_path: Path) -> None:
    """A separator in the text and a token of huge norm would else be the maximum."""
    models.random_sae(tmp_path / "s", "standard", hook_point="blocks.0.hook_resid_post")
    sae = load(tmp_path / "s", llama)
    plain = tokenized(llama, [6, 7, 8], True)
    special = [
        TokenizedText("0", 0, [*plain[0].token_ids, 1], [*plain[0].token_strings, "<|eos|>"])
    ]
    bridge = llama._bridge
    embedding = bridge.original_model.get_input_embeddings().weight
    sink = plain[1].token_ids[-1]
    before = embedding[sink].clone()
    assert sum(text.token_ids.count(sink) for text in plain) <= 3

    def pooled(texts: list[TokenizedText]) -> tuple[NDArray, int]:
        (found,) = observe(llama, [sae], plain, texts)
        return found.pooled, found.sample.tokens

    reference, tokens = pooled(plain)
    with_special, _ = pooled(special)
    np.testing.assert_allclose(with_special[0], reference[0], atol=1e-4)
    with torch.no_grad():
        embedding[sink] *= 1_000
    try:
        _, fewer = pooled(plain)
    finally:
        with torch.no_grad():
            embedding[sink] = before
    assert fewer == tokens - sum(text.token_ids.count(sink) for text in plain)


def tokens_at(sae: SparseAutoencoder, part: str, lengths: list[int], seed: int = 0) -> SiteTokens:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(sum(lengths), sae.d_in, generator=generator) * 2
    return SiteTokens(part, inputs, inputs, list(range(len(lengths))), lengths, 1e9)  # type: ignore[arg-type]


def test_silent_on_the_sample_is_scaled_by_the_texts(llama: LanguageModel, tmp_path: Path) -> None:
    sae = load(models.random_sae(tmp_path / "s", "topk", k=2), llama)
    observation = Observation(sae, sample_tokens=5, texts=3, pooling="max")
    observation.add(tokens_at(sae, "sample", [5]))
    observation.add(tokens_at(sae, "pairs", [9, 4, 8], seed=1))
    silent = observation.sample.fired == 0
    q999, on_texts = observation.q999(), observation.pooled.max(0)
    assert (silent & (on_texts > 0)).any()
    assert (q999[silent] == on_texts[silent]).all()
    largest = sae.encode(tokens_at(sae, "sample", [5]).inputs).amax(0).numpy()
    np.testing.assert_allclose(q999[~silent], largest[~silent], rtol=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
def test_a_small_budget_changes_no_number(
    llama: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    normalisation: str,
) -> None:
    """Chunks end within texts; an SAE that scales each input decodes only its last chunk."""
    folder = models.random_sae(tmp_path / "s", "standard", normalize_activations=normalisation)
    sae = load(folder, llama)
    batches = [tokens_at(sae, "sample", [30]), tokens_at(sae, "pairs", [7, 0, 12, 1, 20], 1)]
    largest: list[int] = []
    encode = sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: largest.append(len(x)) or encode(x))
    found = []
    for budget in (1 << 28, 4 * sae.width * 8):
        monkeypatch.setattr("safesail.ranking._sample.ACTIVATIONS_BUDGET", budget)
        largest.clear()
        observation = Observation(sae, sample_tokens=30, texts=5, pooling=pooling)
        for batch in batches:
            observation.add(batch)
        found.append((observation, list(largest)))
    (whole, one), (parts, several) = found
    assert one == [30, 40]
    assert max(several) <= 8
    np.testing.assert_allclose(parts.pooled, whole.pooled, atol=1e-5)
    assert not whole.pooled[1].any()  # a text without content tokens
    assert whole.pooled[[0, 2, 3, 4]].any(1).all()
    assert parts.sample.fired.tolist() == whole.sample.fired.tolist()
    assert parts.pairs.fvu == pytest.approx(whole.pairs.fvu, rel=1e-5)
    assert parts.q999() == pytest.approx(whole.q999(), rel=1e-5)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_text_in_pieces_is_pooled_as_one(
    llama: LanguageModel, tmp_path: Path, pooling: str
) -> None:
    sae = load(models.random_sae(tmp_path / "s", "standard"), llama)
    whole = tokens_at(sae, "pairs", [5, 9, 6], 1)
    x = whole.inputs
    observation = Observation(sae, sample_tokens=0, texts=2, cut_texts=1, pooling=pooling)
    # Text 0 has the first and the last piece, in batches of their own.
    for part, texts, lengths in ((x[:14], [0, 1], [5, 9]), (x[14:], [0], [6])):
        observation.add(SiteTokens("pairs", part, part, texts, lengths, 1e9))
    z = sae.encode(x)
    pool = {"max": lambda rows: rows.amax(0), "mean": lambda rows: rows.mean(0)}[pooling]
    expected = torch.stack([pool(torch.cat([z[:5], z[14:]])), pool(z[5:14])])
    np.testing.assert_allclose(observation.pooled, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "architecture", ["standard", "jumprelu", "gated", "topk", "abstopk", "matching_pursuit"]
)
def test_rebuilding_from_what_fires_alone_is_rebuilding(
    llama: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
) -> None:
    sae = load(models.random_sae(tmp_path / "s", architecture), llama)
    batch = tokens_at(sae, "sample", [40])
    layouts, rebuilt = [], []
    decode = sae.decode

    def spy(z: torch.Tensor) -> torch.Tensor:
        layouts.append(z.layout)
        rebuilt.append(decode(z))
        return rebuilt[-1]

    monkeypatch.setattr(sae, "decode", spy)
    for few in (0.0, 1.0):
        monkeypatch.setattr("safesail.ranking._sample._FEW", few)
        Observation(sae, sample_tokens=40, texts=0, pooling="max").add(batch)
    assert layouts == [torch.strided, torch.sparse_csr]
    torch.testing.assert_close(rebuilt[1], rebuilt[0], atol=1e-4, rtol=1e-4)
