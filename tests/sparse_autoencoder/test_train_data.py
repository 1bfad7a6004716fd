"""Activations on disk: nothing lost, nothing twice, the same order from any place."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from safesail.sparse_autoencoder import Activations, ActivationWriter, _train_data, read_activations


def numbered(tokens: int, d_in: int = 3) -> torch.Tensor:
    """Rows that name themselves."""
    return torch.arange(tokens, dtype=torch.float32)[:, None] * torch.ones(d_in)


def in_parts(*sizes: int) -> Activations:
    return Activations(numbered(sum(sizes)).split(list(sizes)))


def test_a_pass_takes_every_token_once_and_the_next_in_another_order() -> None:
    activations = in_parts(50, 0, 31, 19)
    batches = list(islice(activations.batches(10, seed=4), 20))
    assert {batch.shape for batch in batches} == {(10, 3)}
    first, second = (torch.cat(batches[start : start + 10])[:, 0] for start in (0, 10))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert first.tolist() != second.tolist() != list(range(100))


def test_what_fills_no_batch_is_left_over_in_its_pass_only() -> None:
    taken = torch.cat(list(islice(in_parts(13, 12).batches(10, seed=0), 40)))[:, 0]
    per_pass = [set(part.tolist()) for part in taken.split(20)]
    assert {len(part) for part in per_pass} == {20}
    assert set().union(*per_pass) == set(range(25))


@pytest.mark.parametrize("first", [0, 1, 4, 9, 10, 13, 27])
def test_batches_from_any_place_are_those_of_an_unbroken_run(first: int) -> None:
    activations = in_parts(41, 33, 29)
    whole = list(islice(activations.batches(10, seed=7), first + 15))
    again = list(islice(activations.batches(10, seed=7, first=first), 15))
    assert torch.equal(torch.stack(whole[first:]), torch.stack(again))


def test_seeds_differ() -> None:
    orders = [next(in_parts(60, 40).batches(20, seed=seed)).tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_moments_are_numpys() -> None:
    values = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 3 + 7
    mean, deviation = Activations([torch.empty(0, 6), values]).moments()
    np.testing.assert_allclose(mean, values.numpy().mean(0), rtol=1e-5)
    assert deviation == pytest.approx(np.sqrt(values.numpy().var(0).mean()), rel=1e-5)


def test_a_spool_holds_each_token_once_and_spreads_texts_over_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_train_data, "_PART_BYTES", 100 * 3 * 4)
    rows = numbered(1000)
    writer = ActivationWriter(tmp_path, 3, tokens=1000, seed=5)
    for batch in rows.split(70):
        writer.add(batch)
    assert writer.tokens == 1000
    read = read_activations(tmp_path, 3)
    assert len(read.parts) == 10
    assert (read.tokens, read.d_in) == (1000, 3)
    assert sorted(torch.cat(read.parts)[:, 0].tolist()) == list(range(1000))
    for part in read.parts:
        # Tokens of the first and of the last texts stand in each.
        assert part.min() < 200
        assert part.max() > 800
    # The files take as much as is said beforehand.
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 1000 * 3 * 4


def test_the_same_tokens_are_spooled_alike(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ActivationWriter(tmp_path / name, 3, tokens=100, seed=5).add(numbered(100))
    one, two = (read_activations(tmp_path / name, 3) for name in ("one", "two"))
    assert torch.equal(next(one.batches(50, 0)), next(two.batches(50, 0)))
