"""What content tokens say of an SAE against NumPy on full data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.ranking._sample import Code, Firings, LargestValues, SampleStatistics, Spread


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


def add(
    statistics: SampleStatistics, targets: torch.Tensor, codes: torch.Tensor, rebuilt: torch.Tensor
) -> None:
    for firings in Firings.of(codes):
        statistics.add_fired(firings.features.numpy(), firings.values.numpy())
    statistics.add_targets(Spread.of(targets))
    statistics.add_rebuilt(targets, rebuilt)


@given(st.integers(0, 10**6), st.sampled_from([10, 999, 1_000, 1_001, 5_000]))
@settings(deadline=None, max_examples=15)
def test_q999_is_numpys_quantile_of_the_non_zero(seed: int, tokens: int) -> None:
    values = sparse(tokens, 5, seed)
    statistics = SampleStatistics(width=5, d_out=2, planned_tokens=tokens + 50)
    for batch in in_batches(values, seed):
        add(statistics, torch.zeros(len(batch), 2), batch, torch.zeros(len(batch), 2))
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
    statistics = SampleStatistics(width=40, d_out=8, planned_tokens=500)
    for part in torch.arange(500).split(130):
        add(statistics, inputs[part], codes[part], rebuilt[part])
    assert statistics.tokens == 500
    assert statistics.l0 == pytest.approx(float((codes > 0).double().sum(1).mean()))
    assert statistics.dead_share == float((codes == 0).all(0).double().mean()) > 0
    x = inputs.double().numpy()
    unexplained = ((inputs - rebuilt).double().numpy() ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert statistics.fvu == pytest.approx(unexplained, rel=1e-4)


def test_fvu_of_tokens_that_do_not_vary_is_undefined() -> None:
    statistics = SampleStatistics(width=1, d_out=2, planned_tokens=1)
    assert np.isnan([statistics.fvu, statistics.l0]).all()
    add(statistics, torch.ones(1, 2), torch.ones(1, 1), torch.zeros(1, 2))
    assert np.isnan(statistics.fvu)
    assert statistics.l0 == 1


def test_firings_are_the_non_zero_in_order_however_many_are_searched_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = sparse(50, 40, 5) * torch.tensor([1.0, -1.0]).repeat(20)
    monkeypatch.setattr("safesail.ranking._sample._SEARCHED", 300)  # seven tokens
    parts = list(Firings.of(values))
    assert [int(part.tokens[0]) // 7 for part in parts] == list(range(8))
    tokens, features = np.nonzero(values.numpy())
    assert torch.cat([part.tokens for part in parts]).tolist() == tokens.tolist()
    assert torch.cat([part.features for part in parts]).tolist() == features.tolist()
    assert torch.cat([p.values for p in parts]).tolist() == values[tokens, features].tolist()


@pytest.mark.parametrize(("share", "is_sparse"), [(0.0, False), (0.02, True), (0.5, False)])
def test_a_code_is_the_activations_in_another_form(share: float, is_sparse: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(60, 100, generator=generator)
    values *= torch.rand(60, 100, generator=generator) < share
    code = Code(values)
    for firings in Firings.of(values):
        code.add(firings)
    found = code.tensor()
    assert (found.layout == torch.sparse_csr) is is_sparse
    assert torch.equal(found.to_dense() if is_sparse else found, values)
