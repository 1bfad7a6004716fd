"""The pass over sample and pairs against direct computation on full data."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._observe import LargestValues, Observation, SampleStatistics, observe
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

WORDS = ["the", "cat", "sat", "mat,", "small", "boat", "sailed", "she", "letter", "1234", "[ok]"]


def in_batches(values: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """The same rows in another order and in batches of any size."""
    generator = np.random.default_rng(seed)
    values = values[torch.from_numpy(generator.permutation(len(values)))]
    cuts = np.sort(generator.integers(0, len(values) + 1, 7))
    return list(torch.tensor_split(values, cuts.tolist()))


def sparse(tokens: int, width: int, seed: int) -> torch.Tensor:
    """Activations: feature 0 never fires, the later ones more and more often; some ties."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.linspace(0, 1, width)
    values = torch.randn(tokens, width, generator=generator).abs() + 0.1
    values = (values * 50).round() / 50
    return values * (torch.rand(tokens, width, generator=generator) < share)


@given(st.integers(0, 10**6), st.sampled_from([10, 999, 1_000, 1_001, 5_000]))
@settings(deadline=None, max_examples=15)
def test_q999_is_numpys_quantile_of_the_non_zero(seed: int, tokens: int) -> None:
    values = sparse(tokens, 5, seed)
    statistics = SampleStatistics(width=5, d_in=2, planned_tokens=tokens + 50)
    for batch in in_batches(values, seed):
        statistics.add(torch.zeros(len(batch), 2), batch, torch.zeros(len(batch), 2))
    for feature, found in enumerate(statistics.q999()):
        fired = values[:, feature][values[:, feature] > 0].numpy()
        if len(fired) == 0:
            expected = 0.0
        else:
            expected = np.quantile(fired, 0.999) if len(fired) >= 1_000 else fired.max()
        assert found == pytest.approx(expected, rel=1e-5)


def test_pruning_loses_nothing_that_counts() -> None:
    values = sparse(3_000, 6, 1)
    largest = LargestValues(6, 5)
    largest._room = 40  # by default never full in a test of this size
    for batch in in_batches(values, 2):
        rows, features = (batch > 0).nonzero(as_tuple=True)
        largest.add(features.numpy(), batch[rows, features].numpy())
        assert largest._held <= 40
    fired = (values > 0).sum(0).numpy()
    expected = [np.quantile(v[v > 0], 0.999) if (v > 0).any() else 0 for v in values.numpy().T]
    enough = fired >= 1_000
    assert enough.sum() == 4
    assert largest.quantile(fired)[enough] == pytest.approx(np.array(expected)[enough], rel=1e-5)


def test_health_by_direct_computation() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(500, 8, generator=generator) * 3 + 100
    rebuilt = inputs + torch.randn(500, 8, generator=generator)
    codes = sparse(500, 40, 4)
    statistics = SampleStatistics(width=40, d_in=8, planned_tokens=500)
    for part in torch.arange(500).split(130):
        statistics.add(inputs[part], codes[part], rebuilt[part])
    assert statistics.tokens == 500
    assert statistics.l0 == pytest.approx(float((codes > 0).double().sum(1).mean()))
    assert statistics.dead_share == float((codes == 0).all(0).double().mean()) > 0
    x = inputs.double().numpy()
    unexplained = ((inputs - rebuilt).double().numpy() ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert statistics.fvu == pytest.approx(unexplained, rel=1e-4)


def test_fvu_of_tokens_that_do_not_vary_is_undefined() -> None:
    statistics = SampleStatistics(width=1, d_in=2, planned_tokens=1)
    statistics.add(torch.ones(1, 2), torch.ones(1, 1), torch.zeros(1, 2))
    assert np.isnan(statistics.fvu)


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
        (candidate,) = find_candidates([name], tmp_path)
        saes.append(SparseAutoencoder.load(candidate, device="cpu"))
        saes[-1].check_fits(llama)
    sample = tokenized(llama, [3, 9, 5, 12, 7, 7, 2, 11], bos)
    pairs = tokenized(llama, [4, 11, 1, 8, 3, 6], bos)
    found = observe(
        llama, saes, sample, pairs, pooling=pooling, progress=lambda items, label: items
    )
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


def test_special_tokens_and_sinks_do_not_count(llama: LanguageModel, tmp_path: Path) -> None:
    """A separator in the text and a token of huge norm would else be the maximum."""
    models.random_sae(tmp_path / "s", "standard", hook_point="blocks.0.hook_resid_post")
    (candidate,) = find_candidates(["s"], tmp_path)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    sae.check_fits(llama)
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
        (found,) = observe(
            llama, [sae], plain, texts, pooling="max", progress=lambda items, label: items
        )
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


def test_silent_on_the_sample_is_scaled_by_the_texts() -> None:
    statistics = SampleStatistics(width=2, d_in=1, planned_tokens=2)
    codes = torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    statistics.add(torch.ones(2, 1), codes, torch.ones(2, 1))
    pooled = np.array([[9.0, 0.5], [0.0, 4.0]], dtype=np.float32)
    assert Observation(None, statistics, pooled).q999().tolist() == [3.0, 4.0]  # type: ignore[arg-type]
