"""Changes of one feature's activation, against what SAELens makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from torch import Tensor

from safesail.diagnosis import FeatureEdit, TextChange, feature_shift
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

FEATURE = 7


def load(folder: Path) -> SparseAutoencoder:
    (candidate,) = find_candidates([str(folder)], folder.parent)
    return SparseAutoencoder.load(candidate, device="cpu")


def inputs(n: int = 40, d: int = models.D_MODEL) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "topk"])
def test_the_shift_is_the_decoder_row_times_the_change(tmp_path: Path, architecture: str) -> None:
    """The formula, by hand, from SAELens' own module."""
    from sae_lens import SAE

    folder = models.random_sae(tmp_path / "sae", architecture)
    sae, x = load(folder), inputs()
    theirs = SAE.load_from_disk(str(folder), device="cpu")
    a = theirs.encode(x)[:, FEATURE]
    assert 0 < (a > 0).sum() < len(a)
    for edit, becomes in (
        (FeatureEdit(FEATURE, "clamp", 1.5, 2.0), torch.full_like(a, 3.0)),
        (FeatureEdit(FEATURE, "scale", 2.5, 2.0), 2.5 * a),
        (FeatureEdit(FEATURE, "ablate", 1.0, 2.0), torch.zeros_like(a)),
    ):
        shift, difference = feature_shift(sae, x, edit)
        expected = (becomes - a)[:, None]
        assert torch.allclose(shift, expected * theirs.W_dec[FEATURE], atol=1e-4)
        assert torch.allclose(difference, expected[:, 0], atol=1e-4)


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
def test_scaled_inputs_give_shifts_in_the_models_units(tmp_path: Path, normalize: str) -> None:
    """An SAE that scales each input: the shift of a double input is double."""
    folder = models.random_sae(tmp_path / "sae", "standard", normalize_activations=normalize)
    sae, x = load(folder), inputs()
    edit = FeatureEdit(FEATURE, "scale", 3.0, 1.0)
    one, difference = feature_shift(sae, x, edit)
    fires = difference != 0
    assert fires.any()
    direction = sae.decoder_directions[FEATURE]
    along = one[fires] @ direction
    assert torch.allclose(one[fires], along[:, None] * direction, atol=1e-4)
    twice, _ = feature_shift(sae, 2 * x, edit)
    if normalize != "none":
        assert torch.allclose(twice, 2 * one, atol=2e-3)
    # By rebuilding: the changed input's own reconstruction moves by as much.
    z = sae.encode(x).clone()
    rebuilt = sae.decode(z)
    z[:, FEATURE] *= 3.0
    assert torch.allclose(sae.decode(z) - rebuilt, one, atol=1e-4)


def test_encoding_again_gives_the_clamped_value(tmp_path: Path) -> None:
    """Where features are orthogonal: a tied SAE on an orthonormal basis."""
    folder = models.random_sae(tmp_path / "sae", "standard", width=models.D_MODEL)
    sae = load(folder)
    basis = torch.linalg.qr(inputs(models.D_MODEL)).Q
    sae._sae.W_enc.data, sae._sae.W_dec.data = basis.T.clone(), basis.clone()
    sae._sae.b_enc.data.zero_()
    sae._sae.b_dec.data.zero_()
    x = inputs()
    before = sae.encode(x)
    shift, _ = feature_shift(sae, x, FeatureEdit(FEATURE, "clamp", 2.0, 1.5))
    after = sae.encode(x + shift)
    # Below zero there is more to it than the activation tells: the clamp adds to what is there.
    fires = before[:, FEATURE] > 0
    assert torch.allclose(after[fires, FEATURE], torch.full((int(fires.sum()),), 3.0), atol=1e-5)
    others = torch.arange(models.D_MODEL) != FEATURE
    assert torch.allclose(after[:, others], before[:, others], atol=1e-5)


def test_ablating_a_silent_feature_changes_nothing(tmp_path: Path) -> None:
    sae, x = load(models.random_sae(tmp_path / "sae", "jumprelu")), inputs()
    silent = sae.encode(x)[:, FEATURE] == 0
    shift, _ = feature_shift(sae, x, FeatureEdit(FEATURE, "ablate", 1.0, 2.0))
    assert silent.any()
    assert shift[silent].eq(0).all()
    assert shift[~silent].abs().sum(-1).gt(0).all()


def test_controls_are_shifted_as_far_and_content_alone(tmp_path: Path) -> None:
    sae = load(models.random_sae(tmp_path / "sae", "gated"))
    x = inputs(6)
    content = torch.tensor([False, True, True, False, True])
    edit = FeatureEdit(FEATURE, "scale", 0.2, 2.0)
    change = TextChange(sae, edit, content, [None, 3, 11])
    added = change(x.expand(3, -1, -1), 0)
    own, difference = feature_shift(sae, x, edit)
    read = torch.tensor([False, True, True, False, True, True])  # what follows the text is content
    assert added[:, ~read].eq(0).all()
    assert torch.allclose(added[0, read], own[read])
    for row, feature in ((1, 3), (2, 11)):
        assert torch.allclose(added[row].norm(dim=-1), added[0].norm(dim=-1), atol=1e-5)
        signed = difference[read].sign() * own[read].norm(dim=-1)
        along = added[row, read] @ sae.decoder_directions[feature]
        assert torch.allclose(along, signed, atol=1e-5)
    # With the cache of keys and values, the model shows what follows alone.
    later = change(x[5:].expand(3, -1, -1), 5)
    assert torch.allclose(later[:, 0], added[:, 5], atol=1e-5)


def test_values_of_modes() -> None:
    a = torch.tensor([0.0, 1.0])
    cases: list[tuple[Any, float, list[float]]] = [
        ("clamp", 0.5, [2.0, 2.0]),
        ("scale", 0.5, [0.0, 0.5]),
        ("ablate", 0.5, [0.0, 0.0]),
    ]
    for mode, value, expected in cases:
        assert FeatureEdit(0, mode, value, 4.0).becomes(a).tolist() == expected
