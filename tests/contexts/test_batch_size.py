"""The batch is measured within a time, by speed alone, and only where that can pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from contexts.conftest import passing

from safesail.contexts import _batch_size as measuring
from safesail.contexts import _collect as collecting
from safesail.contexts import collect_contexts
from safesail.contexts._batch_size import BatchSize, measure_batch_size
from safesail.corpus import Corpus, Document
from safesail.language_model import LanguageModel, TokenizedText
from safesail.sparse_autoencoder import SparseAutoencoder
from safesail.study import CollectionSettings


def texts_of(tokens: int, length: int) -> list[TokenizedText]:
    return [
        TokenizedText(f"d{n}", 0, [1] * length, ["a"] * length, None, n)
        for n in range(tokens // length)
    ]


class Machine:
    """Runs batches on a clock of its own: some seconds for each, and some for each token."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        batch: float,
        token: float,
        loading: float = 0.0,
        room: int = 10**9,
    ) -> None:
        self.now, self.calls = 0.0, list[tuple[int, float, float]]()
        self._batch, self._token, self._loading, self._room = batch, token, loading, room
        monkeypatch.setattr(measuring.time, "monotonic", lambda: self.now)

    def __call__(self, texts: Sequence[TokenizedText], size: int) -> None:
        if size > self._room:
            raise torch.OutOfMemoryError
        began, tokens = self.now, sum(len(text.token_ids) for text in texts)
        longest = max(len(text.token_ids) for text in texts)
        batches = -(-tokens // max(size, longest))
        self.now += batches * self._batch + tokens * self._token + self._loading
        self._loading = 0.0
        self.calls.append((size, began, self.now))


def test_the_batch_grows_while_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(300_000, 100)
    machine = Machine(monkeypatch, batch=1e-3, token=1e-6)
    found = measure_batch_size(texts, machine)
    # 1 ms a batch is 5 % of what 20,000 tokens take.
    assert found.tokens == 16_384
    assert found.tokens_per_second == pytest.approx(1 / (1e-6 + 1e-3 / 16_384), rel=0.01)
    full = Machine(monkeypatch, batch=1e-3, token=1e-6, room=3000)
    assert measure_batch_size(texts, full).tokens == 2048


@pytest.mark.parametrize("token", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("loading", [0.0, 60.0])
def test_nothing_is_begun_that_would_end_after_five_seconds(
    monkeypatch: pytest.MonkeyPatch, token: float, loading: float
) -> None:
    machine = Machine(monkeypatch, batch=64 * token, token=token, loading=loading)
    found = measure_batch_size(texts_of(300_000, 64), machine)
    loaded = machine.calls[0][2]
    # Two calls with few tokens there always are; loading does not count.
    assert [size for size, _, _ in machine.calls[:2]] == [64, 64]
    assert all(ended - loaded <= 5 for _, _, ended in machine.calls[2:])
    assert found.tokens >= 512
    assert (found.tokens_per_second > 0) == (len(machine.calls) > 2)
    assert len(machine.calls) > 3 or token >= 1e-3


def test_long_texts_do_not_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 512 and one of 1,024 tokens would both hold one text of 1,000."""
    machine = Machine(monkeypatch, batch=1e-3, token=1e-6)
    assert measure_batch_size(texts_of(300_000, 1000), machine).tokens >= 8192


def test_no_batch_is_tried_that_the_texts_do_not_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, batch=1e-3, token=1e-6)
    assert measure_batch_size(texts_of(3000, 10), machine).tokens == 2048


@pytest.mark.parametrize(("words", "measured"), [(3_000, False), (30_000, True)])
def test_a_corpus_is_measured_by_what_it_holds(
    llama: LanguageModel,
    sae_of: Callable[..., SparseAutoencoder],
    monkeypatch: pytest.MonkeyPatch,
    words: int,
    measured: bool,
) -> None:
    """However many tokens may be read of it."""
    monkeypatch.setattr(collecting, "WORTH_MEASURING", 10_000)
    tried: list[int] = []

    def measure(texts: Sequence[TokenizedText], run: object) -> BatchSize:
        tried.append(len(texts))
        return BatchSize(2048)

    def engine(*given: object, **named: object) -> None:
        """Sees nothing."""

    monkeypatch.setattr(collecting, "measure_batch_size", measure)
    settings = CollectionSettings(chunk_characters=5000)
    run = passing(llama, {sae_of("standard"): [2]}, settings)
    corpus = Corpus((), Path(), [Document(f"d{n}", f"{n} the cat") for n in range(words // 3)])
    work = collect_contexts(run, corpus, settings, max_tokens=10**9, engine=engine)
    assert bool(tried) == measured
    assert work.tokens_per_batch == (2048 if measured else 4096)
