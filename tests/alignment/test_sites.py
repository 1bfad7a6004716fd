"""Which modules read and write the stream, and how a basis is carried through their norms."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tiny_alignment as tiny
import torch

from safesail.alignment._carry import carry
from safesail.alignment._sites import find_sites, norm_gain, roles_of
from safesail.errors import AlignmentError

GATED = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")


@pytest.fixture(scope="module", params=[*tiny.MAKERS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.load(tiny.MAKERS[request.param](tmp_path_factory.mktemp(request.param)))


@torch.no_grad()
def test_readers_and_writers_are_wired_as_said(model: Any) -> None:
    """Follow the activations: a reader's input is its norm of the stream, and what a block adds to
    the stream is the sum of what its writers give, each through its norm."""
    sites = find_sites(model, roles_of(model))
    assert len(sites) == models.LAYERS * len({site.module for site in sites if site.block == 0})
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def watch(name: str) -> Any:
        return lambda module, given, output: seen.update({name: (given[0], output)})

    for site in sites:
        model.get_submodule(site.module).register_forward_hook(watch(site.module))
    streams: list[torch.Tensor] = []
    blocks = model.get_submodule(next(site.module for site in sites).partition(".0.")[0])

    def begins(module: Any, given: Any, kwargs: Any) -> None:
        streams.append(given[0] if given else kwargs["hidden_states"])

    for block in blocks:
        block.register_forward_pre_hook(begins, with_kwargs=True)
    blocks[-1].register_forward_hook(
        lambda module, given, output: streams.append(
            output if isinstance(output, torch.Tensor) else output[0]
        )
    )
    tiny.logits(model)
    side_by_side = model.config.model_type == "gpt_neox"
    share = getattr(model.config, "residual_multiplier", 1.0)
    for block in range(models.LAYERS):
        mine = [site for site in sites if site.block == block]
        written = {}
        for site in mine:
            given, output = seen[site.module]
            assert (given.shape[-1], output.shape[-1]) == (site.d_in, site.d_out)
            assert site.stream == (block if site.kind == "reader" else block + 1)
            if site.kind == "writer":
                norm = model.get_submodule(site.norm) if site.norm else torch.nn.Identity()
                written[site.roles] = share * norm(output)
        middle = streams[block] + written[("o",)]
        if ("down",) in written:  # else experts write
            torch.testing.assert_close(streams[block + 1], middle + written[("down",)])
        for site in mine:
            if site.kind == "reader":
                late = site.roles[0] in ("gate", "up") and not side_by_side
                norm = model.get_submodule(site.norm) if site.norm else torch.nn.Identity()
                state = norm(middle if late else streams[block])
                torch.testing.assert_close(seen[site.module][0], state)


def test_gains_are_the_weights_or_one_more(model: Any) -> None:
    for site in find_sites(model, roles_of(model)):
        if site.norm is None:
            continue
        norm = model.get_submodule(site.norm)
        expected = norm.weight.detach() + ("Gemma" in type(norm).__name__)
        assert expected.std() > 0.1
        torch.testing.assert_close(norm_gain(norm).float(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gains_of_half_precision_are_not_rounded(model: Any, dtype: torch.dtype) -> None:
    """Outputs would be, and 1 + weight too."""
    for site in find_sites(model, roles_of(model)):
        if site.norm is None:
            continue
        norm = copy.deepcopy(model.get_submodule(site.norm)).to(dtype)
        expected = norm.weight.detach().float() + ("Gemma" in type(norm).__name__)
        torch.testing.assert_close(norm_gain(norm).float(), expected, rtol=1e-5, atol=1e-6)
        assert norm.weight.dtype is dtype


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("llama", ["q", "head"], "no module is called 'head'"),
        ("llama", [], "no modules to adapt"),
        ("gpt2", ["gate"], "have no module 'gate'"),
        ("gpt2", ["q", "o"], "one module computes q, k, v"),
    ],
)
def test_modules_that_there_are_not(
    kind: str, asked: list[str], message: str, tmp_path: Path
) -> None:
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    with pytest.raises(AlignmentError, match=message):
        find_sites(model, asked)


def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="models of type 'gptj': known are llama"):
        find_sites(tiny.load(models.tiny_gptj(tmp_path)))


def test_quantised_modules_are_refused(tmp_path: Path) -> None:
    class Quantised(torch.nn.Linear):
        pass

    model = tiny.load(models.tiny_llama(tmp_path))
    model.model.layers[1].self_attn.k_proj = Quantised(32, 16)
    with pytest.raises(AlignmentError, match=r"1\.self_attn\.k_proj is Quantised"):
        find_sites(model)


def random_basis(rank: int, d_model: int = 32) -> np.ndarray:
    drawn = np.random.default_rng(rank).normal(size=(d_model, rank))
    return np.linalg.qr(drawn)[0].astype(np.float32)


def test_a_carried_basis_spans_the_basis_over_the_gain() -> None:
    basis = random_basis(5)
    gain = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    carried = carry(basis, gain)
    factor = carried.factor.double()
    torch.testing.assert_close(factor.T @ factor, torch.eye(5, dtype=torch.float64))
    assert tiny.left_outside(gain[:, None] * factor, basis) < 1e-5
    assert carried.fidelity == pytest.approx(1, abs=1e-6)
    # The first columns go with the first.
    assert tiny.left_outside(gain[:, None] * factor[:, :2], basis[:, :2]) < 1e-5


def test_without_a_norm_or_with_an_even_one_a_basis_stays_as_it_is() -> None:
    basis = random_basis(5)
    for gain in (None, torch.full((32,), 0.3, dtype=torch.float64)):
        carried = carry(basis, gain)
        np.testing.assert_allclose(carried.factor.numpy(), basis, atol=1e-6)
        assert carried.fidelity == pytest.approx(1, abs=1e-6)


def test_gains_near_zero_do_not_take_the_factor_over() -> None:
    basis = random_basis(5)
    gain = torch.ones(32, dtype=torch.float64)
    gain[3], gain[7] = 0.0, -1e-9
    carried = carry(basis, gain)
    assert carried.factor.isfinite().all()
    # What a dead coordinate held is lost, no more.
    held = float((basis[[3, 7]] ** 2).sum() / 5)
    assert 1 - 3 * held < carried.fidelity < 1
