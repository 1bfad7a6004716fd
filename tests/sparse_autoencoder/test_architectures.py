"""Every architecture of SAELens: trained small, saved, loaded, and encoded as SAELens does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import D_MODEL, random_sae
from torch import Tensor

from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.sparse_autoencoder._loading import ARCHITECTURES

WIDTH = 128
# What SAELens' trainer can make, and what `save_inference_model` makes of it.
TRAINED = {
    "standard": "standard",
    "gated": "gated",
    "topk": "topk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "matching_pursuit": "matching_pursuit",
}
TRANSCODERS = (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 5},
    "gated": {"l1_coefficient": 5},
    "topk": {"k": 8},
    "abstopk": {"k": 8},
    "jumprelu": {"l0_coefficient": 5, "jumprelu_init_threshold": 0.4},
    "batchtopk": {"k": 8},
    "matryoshka_batchtopk": {"k": 8, "matryoshka_widths": [32, WIDTH]},
    "matching_pursuit": {"residual_threshold": 0.5, "max_iterations": 8},
}
# Largest relative difference, and how near its edge (as a share of the largest activation)
# a feature must lie to be on in one encode and off in the other.
TOLERANCE = 1e-5
BAND = 1e-5


def activations() -> Iterator[Tensor]:
    """Sparse sums of fixed directions around a mean, as residual streams are."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(64, D_MODEL, generator=generator)
    while True:
        present = torch.rand(256, 64, generator=generator)
        amounts = torch.rand(256, 64, generator=generator) * (present < 0.06)
        yield amounts @ directions + 0.3


def train(folder: Path, architecture: str, **more: Any) -> Path:
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    sae_class, config_class = get_sae_training_class(architecture)
    metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", prepend_bos=True)
    settings = {**SETTINGS[architecture], **more}
    torch.manual_seed(0)
    sae = sae_class(config_class(d_in=D_MODEL, d_sae=WIDTH, metadata=metadata, **settings))
    config = SAETrainerConfig(
        total_training_samples=256 * 80,
        train_batch_size_samples=256,
        lr=3e-3,
        lr_end=3e-4,
        device="cpu",
    )
    SAETrainer(config, sae, activations()).fit().save_inference_model(str(folder))
    return folder


def both(folder: Path) -> tuple[SparseAutoencoder, Any]:
    """The SAE as safesail reads it, and as SAELens does."""
    from sae_lens import SAE

    (candidate,) = find_candidates([str(folder)], folder)
    return (
        SparseAutoencoder.load(candidate, device="cpu"),
        SAE.load_from_disk(folder, device="cpu", dtype="float32"),
    )


def assert_equal(found: Tensor, expected: Tensor, edge: Tensor | float = 0.0) -> None:
    """Within 1e-5 relative, but where one is zero and the other at the edge of being so.

    Of small activations, differences of larger terms, relative to a tenth of the largest.

    Args:
        found: features by safesail, [n, k].
        expected: by SAELens, [n, k].
        edge: activation at which a feature starts: its threshold, or a token's k-th largest.
    """
    scale = expected.abs().max()
    differ = (found - expected).abs() > TOLERANCE * expected.abs().clamp(min=0.1 * scale)
    larger = torch.maximum(found.abs(), expected.abs())
    flipped = ((found == 0) != (expected == 0)) & ((larger - edge).abs() <= BAND * scale)
    assert not (differ & ~flipped).any()
    assert flipped.float().mean() < 1e-4


def edge_of(reference: Any, encoded: Tensor) -> Tensor | float:
    """Where SAELens' SAE begins to let features through."""
    if hasattr(reference, "threshold"):
        edge: Tensor = reference.threshold.detach().clamp(min=0)
        return edge
    if hasattr(reference.cfg, "k"):
        size = encoded.abs()
        return size.where(size > 0, torch.inf).amin(dim=-1, keepdim=True)
    return 0.0


def test_every_architecture_is_decided_on() -> None:
    """An architecture that SAELens adds fails here until it is encoded, with a test, or refused."""
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    assert set(TRAINED) == set(SAE_TRAINING_CLASS_REGISTRY)
    assert set(ARCHITECTURES) == {*TRAINED.values(), *TRANSCODERS}
    assert set(SAE_CLASS_REGISTRY) == {*ARCHITECTURES, "temporal"}


@pytest.fixture(scope="module", params=TRAINED)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained") / request.param, request.param)


def test_trained_saes_encode_as_in_saelens(trained: Path) -> None:
    sae, reference = both(trained)
    assert sae.architecture == TRAINED[trained.name]
    x = torch.cat([batch for batch, _ in zip(activations(), range(8), strict=False)])
    with torch.no_grad():
        expected = reference.encode(x)
        rebuilt = reference.decode(expected)
    assert 1 < (expected != 0).sum(1).float().mean() < WIDTH / 2
    edge = edge_of(reference, expected)
    assert_equal(sae.encode(x), expected, edge)
    features = torch.tensor([7, 0, WIDTH - 1, 7])
    patched = expected.clone()
    patched[:, features] = sae.encode_features(x, features)
    assert_equal(patched, expected, edge)
    torch.testing.assert_close(sae.decode(expected), rebuilt, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
@pytest.mark.parametrize("rescale", [True, False])
def test_decoder_norms_in_the_choice_of_the_largest(
    tmp_path: Path, architecture: str, rescale: bool
) -> None:
    """`rescale_acts_by_decoder_norm` with norms that are not 1: it decides which features fire."""
    folder = random_sae(tmp_path / "s", architecture, k=5, rescale_acts_by_decoder_norm=rescale)
    _, reference = both(folder)
    with torch.no_grad():
        # Decoder rows of very different length, saved as they are.
        reference.W_dec *= torch.linspace(0.2, 5, len(reference.W_dec))[:, None]
        reference.save_model(folder)
        x = next(activations())
        expected = reference.encode(x)
        rebuilt = reference.decode(expected)
    sae, _ = both(folder)
    assert_equal(sae.encode(x), expected, edge_of(reference, expected))
    torch.testing.assert_close(sae.decode(sae.encode(x)), rebuilt, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_transcoders_encode_and_rebuild_as_in_saelens(tmp_path: Path, architecture: str) -> None:
    about = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    folder = random_sae(
        tmp_path / "s", architecture, metadata=about, d_out=48, apply_b_dec_to_input=False
    )
    sae, reference = both(folder)
    assert (sae.d_in, sae.d_out) == (D_MODEL, 48)
    assert (sae.hook_point, sae.output_hook_point) == tuple(about.values())
    x = next(activations())
    with torch.no_grad():
        expected, rebuilt = reference.encode(x), reference(x)
        plain = reference.decode(expected)
    assert torch.allclose(plain, rebuilt) == ("skip" not in architecture)
    z = sae.encode(x)
    assert_equal(z, expected, edge_of(reference, expected))
    torch.testing.assert_close(sae.decode(z), rebuilt, atol=1e-4, rtol=1e-4)
    features = torch.tensor([3, 90, 0])
    found = sae.encode_features(x[:5], features)
    torch.testing.assert_close(found, z[:5, features], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(z), rebuilt, atol=1e-4, rtol=1e-4)


def test_a_threshold_is_exceeded_not_met(tmp_path: Path) -> None:
    """At the threshold JumpReLU is zero; below zero a threshold changes nothing."""
    folder = random_sae(tmp_path / "s", "jumprelu", apply_b_dec_to_input=False, width=4)
    _, reference = both(folder)
    with torch.no_grad():
        reference.W_enc.zero_()[0, :] = 1.0
        reference.b_enc.zero_()
        reference.threshold.copy_(torch.tensor([0.5, 0.25, -1.0, 0.0]))
        reference.save_model(folder)
    x = torch.zeros(4, D_MODEL)
    x[:, 0] = torch.tensor([0.5, 0.25, -0.5, 0.75])
    expected = [[0, 0.5, 0.5, 0.5], [0, 0, 0.25, 0.25], [0, 0, 0, 0], [0.75] * 4]
    sae, _ = both(folder)
    assert sae.encode(x).tolist() == expected
    with torch.no_grad():
        assert reference.encode(x).tolist() == expected
