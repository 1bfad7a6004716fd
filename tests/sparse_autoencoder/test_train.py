"""Training SAEs: every architecture, folded scales, kills, checkpoints, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from safesail.errors import CandidateError, ConfigurationError, InputError, StorageError
from safesail.sparse_autoencoder import (
    Activations,
    Recipe,
    SparseAutoencoder,
    TrainedSae,
    TrainingStep,
    find_candidates,
    train_sae,
    untrained_sae,
    usual_learning_rate,
)

D_IN, FEATURES = 24, 48
ABOUT = {"model_name": "tiny", "prepend_bos": True, "context_size": 64}
RECIPE = Recipe(
    hook_point="blocks.1.hook_resid_post",
    architecture="topk",
    sparsity=4,
    width=64,
    steps=200,
    batch=128,
    learning_rate=3e-3,
)
# What they are saved as, and a sparsity.
ARCHITECTURES = {
    "topk": ("topk", 4),
    "batchtopk": ("jumprelu", 4),
    "matryoshka": ("jumprelu", 4),
    "jumprelu": ("jumprelu", 4),
    "standard": ("standard", 1.5),
    "gated": ("gated", 1.5),
}


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of four of 48 directions, off centre: to train on, and held out."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(
        torch.randn(FEATURES, D_IN, generator=generator), dim=1
    )
    chosen = torch.rand(5000, FEATURES, generator=generator).topk(4).indices
    strength = 1 + torch.rand(5000, 4, generator=generator)
    codes = torch.zeros(5000, FEATURES).scatter(1, chosen, strength)
    rows = codes @ directions + 3
    return rows[:4000], rows[4000:]


def train(
    data: tuple[torch.Tensor, torch.Tensor],
    folder: Path,
    recipe: Recipe = RECIPE,
    scale: float = 1.0,
    **options: Any,
) -> TrainedSae:
    parts = Activations((data[0] * scale).split(1500))
    return train_sae(recipe, parts, data[1] * scale, folder, about=ABOUT, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_trained_and_loads(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, architecture: str
) -> None:
    from sae_lens import SAE

    saved, sparsity = ARCHITECTURES[architecture]
    recipe = replace(RECIPE, architecture=architecture, sparsity=sparsity)
    trained = train(data, tmp_path / "sae", recipe)
    assert {path.name for path in tmp_path.iterdir()} == {"sae"}
    sae: Any = SAE.load_from_disk(tmp_path / "sae", device="cpu")
    heldout = data[1]
    with torch.inference_mode():
        codes = sae.encode(heldout)
        error = (sae.decode(codes) - heldout).square().sum()
    fired = (codes > 0).numpy()
    assert trained.l0 == pytest.approx(fired.sum(1).mean())
    assert trained.dead_share == pytest.approx((~fired.any(0)).mean())
    fvu = float(error / (heldout - heldout.mean(0)).square().sum())
    assert trained.fvu == pytest.approx(fvu, rel=1e-4)
    assert trained.fvu < 0.5
    assert 2 < trained.l0 < (12 if sparsity == 4 else 24)
    if sparsity == 4 and architecture != "jumprelu":
        # Of batchtopk, k is an average, and its threshold a moving one: also in so few steps.
        assert trained.l0 == pytest.approx(4, rel=0.15)
    assert sae.cfg.architecture() == saved
    assert sae.cfg.normalize_activations == "none"
    norms = sae.W_dec.norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-4)
    metadata = sae.cfg.metadata
    assert (metadata.hook_name, metadata.prepend_bos) == (recipe.hook_point, True)
    assert (metadata.model_name, metadata.context_size) == ("tiny", 64)
    (candidate,) = find_candidates([str(tmp_path / "sae")], tmp_path)
    own = SparseAutoencoder.load(candidate, device="cpu").encode(heldout)
    assert torch.allclose(own, codes, atol=1e-4)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "standard", "gated"])
def test_the_size_of_the_activations_changes_nothing_but_the_size_of_the_features(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, architecture: str
) -> None:
    recipe = replace(
        RECIPE, architecture=architecture, sparsity=ARCHITECTURES[architecture][1], steps=60
    )
    small = train(data, tmp_path / "small", recipe)
    large = train(data, tmp_path / "large", recipe, scale=128.0)
    assert large.l0 == pytest.approx(small.l0, rel=0.01)
    assert large.fvu == pytest.approx(small.fvu, rel=0.01)
    assert large.loss == pytest.approx(small.loss, rel=0.01)
    biases = [load_file(tmp_path / name / "sae_weights.safetensors") for name in ("small", "large")]
    assert torch.allclose(biases[1]["b_dec"], 128 * biases[0]["b_dec"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "gated"])
def test_a_killed_training_ends_as_an_unkilled_one(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, architecture: str
) -> None:
    recipe = replace(RECIPE, architecture=architecture, sparsity=ARCHITECTURES[architecture][1])
    whole = train(data, tmp_path / "whole", recipe)
    seen: list[int] = []

    def die(now: TrainingStep) -> None:
        seen.append(now.step)
        if now.step == 140:
            raise KeyboardInterrupt

    kept = {"checkpoints": tmp_path / "checkpoints", "checkpoint_every": 50}
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "resumed", recipe, watch=die, **kept)
    assert not (tmp_path / "resumed").exists()
    # As if killed while it wrote.
    (tmp_path / "checkpoints" / "partial").mkdir()
    (tmp_path / "checkpoints" / "partial" / "trainer_state.pt").write_bytes(b"half")
    seen.clear()
    resumed = train(
        data, tmp_path / "resumed", recipe, watch=lambda now: seen.append(now.step), **kept
    )
    assert seen == [120, 140, 160, 180, 200]  # from the checkpoint at 100 on
    assert not (tmp_path / "checkpoints").exists()
    assert resumed.loss == pytest.approx(whole.loss, rel=1e-5)
    one, two = (
        load_file(tmp_path / name / "sae_weights.safetensors") for name in ("whole", "resumed")
    )
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5), name


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_would_run_code_is_refused(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    def die(now: TrainingStep) -> None:
        if now.step == 60:
            raise KeyboardInterrupt

    kept = {"checkpoints": tmp_path / "checkpoints", "checkpoint_every": 50}
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "sae", watch=die, **kept)
    (state,) = (tmp_path / "checkpoints").glob("step-*/trainer_state.pt")
    torch.save(Payload(tmp_path / "ran"), state)
    with pytest.raises(StorageError, match=r"cannot read checkpoint .*step-000000050"):
        train(data, tmp_path / "sae", **kept)
    assert not (tmp_path / "ran").exists()
    with state.open("rb") as file:  # it would have run
        torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()


def test_training_is_what_rebuilds(data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    steps: list[TrainingStep] = []
    trained = train(data, tmp_path / "sae", watch=steps.append)
    first = untrained_sae(RECIPE, D_IN, ABOUT)
    with torch.inference_mode():
        error = (first(data[1]) - data[1]).square().sum()
    assert trained.fvu < 0.3 * float(error / (data[1] - data[1].mean(0)).square().sum())
    assert [now.step for now in steps] == list(range(20, 201, 20))
    assert steps[-1].loss < 0.75 * steps[0].loss
    assert steps[-1].l0 == 4
    figures = json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]
    assert figures["safesail_figures"]["fvu"] == trained.fvu
    assert figures["l0"] == trained.l0


def test_first_weights_leave_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    untrained_sae(RECIPE, D_IN, ABOUT)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "dense"}, "unknown architecture 'dense'"),
        ({"sparsity": 65}, "sparsity 65 of topk is above the width 64"),
        ({"sparsity": 2.5}, r"sparsity 2.5 of topk must be whole"),
        ({"sparsity": 0}, "sparsity must be above 0"),
        ({"steps": 0}, "steps must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"hook_point": "model.layers.3"}, "hook point 'model.layers.3'"),
    ],
)
def test_what_cannot_be_trained_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        replace(RECIPE, **change)


def test_an_l1_coefficient_may_be_above_the_width() -> None:
    assert replace(RECIPE, architecture="standard", sparsity=100.0).sparsity == 100


def test_names() -> None:
    assert RECIPE.name(8) == "layer1-resid-topk4"
    assert RECIPE.name(D_IN) == "layer1-resid-topk4-w64"
    standard = replace(RECIPE, architecture="standard", sparsity=0.5)
    assert replace(standard, hook_point="blocks.10.attn.hook_z").name(8) == "layer10-z-standard0.5"


def test_learning_rates_fall_with_the_root_of_the_width() -> None:
    assert usual_learning_rate(2**14) == pytest.approx(4e-4)
    assert usual_learning_rate(2**10) == pytest.approx(16e-4)


def test_too_little_or_bad_data_is_one_line(
    data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"100 tokens at blocks\.1\.\S+ do not fill"):
        train((data[0][:100], data[1]), tmp_path / "sae")
    with pytest.raises(InputError, match="do not vary"):
        train((torch.ones(500, D_IN), data[1]), tmp_path / "sae")
    with pytest.raises(CandidateError, match=r"layer1-resid-topk4-w64 failed at step .*lower"):
        train(data, tmp_path / "sae", replace(RECIPE, learning_rate=1e30))
    assert not (tmp_path / "sae").exists()
