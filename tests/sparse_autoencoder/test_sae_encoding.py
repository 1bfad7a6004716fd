"""Features and reconstructions against SAELens' own, for every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import D_MODEL, random_sae
from safetensors.torch import load_file, save_file
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from safesail.errors import CandidateError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

ARCHITECTURES = ["standard", "jumprelu", "gated", "topk", "abstopk"]
NORMALISATIONS = ["none", "layer_norm", "constant_norm_rescale"]


def load(folder: Path) -> SparseAutoencoder:
    (candidate,) = find_candidates([str(folder)], folder.parent)
    return SparseAutoencoder.load(candidate, device="cpu")


def original(folder: Path) -> Any:
    """The same SAE as SAELens runs it."""
    from sae_lens import SAE

    return SAE.load_from_disk(folder, device="cpu", dtype="float32")


def inputs(rows: int = 50, d_in: int = D_MODEL, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d_in, generator=generator) * 2 + 0.3


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=NORMALISATIONS)
def folder(
    request: pytest.FixtureRequest, architecture: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return random_sae(
        tmp_path_factory.mktemp("sae"), architecture, normalize_activations=request.param
    )


def test_encode_and_decode_as_saelens_does(folder: Path) -> None:
    sae, reference = load(folder), original(folder)
    x = inputs()
    with torch.no_grad():
        expected = reference.encode(x)
        rebuilt = reference.decode(expected)
    z = sae.encode(x)
    assert 0.02 < (expected != 0).float().mean() < 0.6
    assert z.shape == (50, sae.width)
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(z), rebuilt, atol=1e-5, rtol=1e-5)


def test_a_few_features_are_those_columns(folder: Path) -> None:
    sae = load(folder)
    x = inputs()
    features = torch.tensor([95, 3, 17, 17, 0, 60])
    found = sae.encode_features(x, features)
    with torch.no_grad():
        expected = original(folder).encode(x)[:, features]
    assert (expected != 0).any()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_other_calls_between_encode_and_decode_change_nothing(folder: Path) -> None:
    sae = load(folder)
    x = inputs()
    z = sae.encode(x)
    expected = sae.decode(z)
    sae.encode_features(inputs(7, seed=5), torch.tensor([1, 2]))
    torch.testing.assert_close(sae.decode(z), expected)
    sae.encode(inputs(50, seed=6))
    sae.encode(x)
    torch.testing.assert_close(sae.decode(z), expected)


def test_no_rows_are_no_trouble(folder: Path) -> None:
    sae = load(folder)
    x = torch.empty(0, D_MODEL)
    assert sae.encode(x).shape == (0, sae.width)
    assert sae.decode(sae.encode(x)).shape == (0, D_MODEL)
    assert sae.encode_features(x, torch.tensor([1, 2])).shape == (0, 2)


@pytest.mark.parametrize("normalisation", NORMALISATIONS[1:])
def test_scaled_inputs_are_decoded_only_after_them(tmp_path: Path, normalisation: str) -> None:
    sae = load(random_sae(tmp_path / "s", "standard", normalize_activations=normalisation))
    with pytest.raises(CandidateError, match="it decodes only what it has just encoded"):
        sae.decode(torch.zeros(50, sae.width))
    sae.encode(inputs(50))
    with pytest.raises(CandidateError, match="it decodes only what it has just encoded"):
        sae.decode(torch.zeros(49, sae.width))


def test_columns_alone_do_not_give_topk(tmp_path: Path) -> None:
    """The test above would pass on a formula by columns if k did not bind: it does."""
    folder = random_sae(tmp_path / "s", "topk", k=3)
    z = load(folder).encode(inputs())
    assert ((z > 0).sum(1) <= 3).all()
    reference = original(folder)
    dense = (inputs() - reference.b_dec) @ reference.W_enc + reference.b_enc
    assert ((dense > 0).sum(1) > 3).float().mean() > 0.5


def test_trained_forms_exported_by_saelens(tmp_path: Path) -> None:
    """Batch-topk exports itself as JumpReLU; its inference form is what is ranked."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", prepend_bos=False)
    config = BatchTopKTrainingSAEConfig(d_in=D_MODEL, d_sae=64, k=4, metadata=metadata)
    training = BatchTopKTrainingSAE(config)
    training.topk_threshold.fill_(0.02)
    training.save_inference_model(tmp_path / "exported")
    sae = load(tmp_path / "exported")
    assert sae.architecture == "jumprelu"
    assert sae.prepend_bos is False
    with torch.no_grad():
        expected = original(tmp_path / "exported").encode(inputs())
    assert (expected != 0).any()
    torch.testing.assert_close(sae.encode(inputs()), expected, atol=1e-5, rtol=1e-5)


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    folder = random_sae(tmp_path / "s", "standard")
    file = folder / "sae_weights.safetensors"
    halves = {name: value.half() for name, value in load_file(file).items()}
    save_file(halves, file)
    sae = load(folder)
    z = sae.encode(inputs())
    assert z.dtype == torch.float32
    full = {name: value.double() for name, value in halves.items()}
    drive = (inputs().double() - full["b_dec"]) @ full["W_enc"] + full["b_enc"]
    torch.testing.assert_close(z.double(), drive.relu(), atol=1e-5, rtol=1e-5)


def test_a_sae_for_heads_reads_them_flattened(tmp_path: Path, llama: LanguageModel) -> None:
    hook_point = "blocks.1.attn.hook_z"
    folder = random_sae(tmp_path / "s", "jumprelu", 32, hook_point, reshape_activations="hook_z")
    sae = load(folder)
    sae.check_fits(llama)
    (text,) = llama.tokenize("the cat sat on the mat", document="d", prepend_bos=True)
    (batch,) = llama.batches([text], prepend_bos=True)
    x = llama.activations(batch, [hook_point])[hook_point][0]
    with torch.no_grad():
        reference = original(folder)
        expected = reference.encode(x.clone().view(len(x), 4, 8))
        rebuilt = reference.decode(expected).flatten(1)
    z = sae.encode(x)
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae.decode(z), rebuilt, atol=1e-5, rtol=1e-5)


def test_a_trained_sae_explains_most_variance(tmp_path: Path) -> None:
    """An identity dictionary rebuilds its input; half of it rebuilds half the variance."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    metadata = SAEMetadata(hook_name="blocks.0.hook_resid_post", prepend_bos=True)
    config = StandardSAEConfig(
        d_in=D_MODEL, d_sae=2 * D_MODEL, metadata=metadata, apply_b_dec_to_input=False
    )
    built = StandardSAE(config)
    both_signs = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])
    both_signs[D_MODEL // 2 : D_MODEL] = 0
    both_signs[D_MODEL + D_MODEL // 2 :] = 0
    state = {name: torch.zeros_like(value) for name, value in built.state_dict().items()}
    built.load_state_dict({**state, "W_enc": both_signs.T, "W_dec": both_signs})
    built.save_model(tmp_path / "s")
    sae = load(tmp_path / "s")
    x = torch.randn(4000, D_MODEL, generator=torch.Generator().manual_seed(0))
    error = (x - sae.decode(sae.encode(x))).square().sum()
    assert (error / (x - x.mean(0)).square().sum()).item() == pytest.approx(0.5, abs=0.02)


def test_decoder_directions_and_neighbours(tmp_path: Path) -> None:
    folder = random_sae(tmp_path / "s", "standard", width=300)
    sae = load(folder)
    weights = load_file(folder / "sae_weights.safetensors")["W_dec"].numpy()
    expected = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    np.testing.assert_allclose(sae.decoder_directions.numpy(), expected, atol=1e-6)
    features = [7, 0, 299]
    search = NearestNeighbors(n_neighbors=6, metric="cosine").fit(weights)
    neighbours = search.kneighbors(weights[features], return_distance=False)
    assert neighbours[:, 0].tolist() == features  # each is nearest to itself
    found = sae.nearest_features(torch.tensor(features), 5)
    assert found.tolist() == neighbours[:, 1:].tolist()


def test_no_more_neighbours_than_there_are(tmp_path: Path) -> None:
    sae = load(random_sae(tmp_path / "s", "standard", width=4))
    found = sae.nearest_features(torch.tensor([2]), 10)
    assert sorted(found[0].tolist()) == [0, 1, 3]
