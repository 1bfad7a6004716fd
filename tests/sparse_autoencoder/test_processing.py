"""SAEs trained on processed weights, read on raw ones: the same numbers, or a refusal by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import random_sae
from torch import Tensor

from safesail.errors import CandidateError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import Candidate, SparseAutoencoder

NOTHING = {
    "fold_ln": False,
    "center_writing_weights": False,
    "center_unembed": False,
    "fold_value_biases": False,
    "refactor_factored_attn_matrices": False,
}
STREAM = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def gpt2(gpt2_folder: Path) -> LanguageModel:
    return LanguageModel.load(str(gpt2_folder), device="cpu")


def load(folder: Path) -> SparseAutoencoder:
    return SparseAutoencoder.load(Candidate("s", str(folder), folder=folder), device="cpu")


def made_on(
    tmp_path: Path, settings: dict[str, Any], hook_point: str = STREAM, d_in: int = 32
) -> SparseAutoencoder:
    about = {"model_from_pretrained_kwargs": settings}
    return load(random_sae(tmp_path / "s", "standard", d_in, hook_point, metadata=about))


def activations(
    model: LanguageModel, folder: Path, settings: dict[str, Any], hook_point: str
) -> tuple[Tensor, Tensor]:
    """Of one text, on the raw weights and on weights that TransformerLens has processed."""
    from transformer_lens.model_bridge import TransformerBridge

    (text,) = model.tokenize("the cat sat on the mat", document="d", prepend_bos=True)
    (batch,) = model.batches([text], prepend_bos=True)
    raw = model.activations(batch, [hook_point])[hook_point][0]
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    bridge.process_weights(**{**NOTHING, **settings})
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch.token_ids, names_filter=[hook_point])
    return raw, cache[hook_point][0].flatten(1)


@pytest.mark.parametrize(
    "hook_point",
    ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_mid",
     "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"],
)  # fmt: skip
def test_what_centred_weights_write_is_centred(
    tmp_path: Path, gpt2: LanguageModel, gpt2_folder: Path, hook_point: str
) -> None:
    from sae_lens import SAE

    settings = {"center_writing_weights": True}
    sae = made_on(tmp_path, settings, hook_point)
    sae.check_fits(gpt2)
    raw, centred = activations(gpt2, gpt2_folder, settings, hook_point)
    assert not torch.allclose(raw, centred, atol=1e-2)
    reference = SAE.load_from_disk(tmp_path / "s", device="cpu")
    with torch.no_grad():
        expected = reference.encode(centred)
        rebuilt = reference.decode(expected)
    z = sae.encode(raw)
    torch.testing.assert_close(z, expected, atol=1e-4, rtol=1e-4)
    features = torch.tensor([5, 1])
    torch.testing.assert_close(sae.encode_features(raw, features), z[:, features])
    # The error is compared in the stream's own terms: its mean is given back.
    torch.testing.assert_close(sae.decode(z) - raw, rebuilt - centred, atol=1e-4, rtol=1e-4)
    assert sae.warnings == []


@pytest.mark.parametrize(
    ("settings", "hook_point", "d_in"),
    [
        ({"fold_ln": True}, STREAM, 32),
        ({"fold_ln": True}, "blocks.1.attn.hook_z", 32),
        ({"fold_ln": True}, "blocks.1.ln2.hook_normalized", 32),
        ({"fold_ln": True}, "blocks.1.mlp.hook_post", 128),
        ({"fold_ln": True, "center_writing_weights": True}, "blocks.1.mlp.hook_post", 128),
        ({"center_writing_weights": True}, "blocks.1.attn.hook_z", 32),
        ({"center_writing_weights": True}, "blocks.1.mlp.hook_in", 32),
        ({"fold_value_biases": True}, STREAM, 32),
        ({"fold_value_biases": True}, "blocks.1.hook_attn_out", 32),
        ({"center_unembed": True}, STREAM, 32),
    ],
)
def test_processing_that_changes_nothing_there_is_set_aside(
    tmp_path: Path,
    gpt2: LanguageModel,
    gpt2_folder: Path,
    settings: dict[str, Any],
    hook_point: str,
    d_in: int,
) -> None:
    """TransformerLens' own processed weights show the same activations there."""
    raw, processed = activations(gpt2, gpt2_folder, settings, hook_point)
    torch.testing.assert_close(raw, processed, atol=1e-4, rtol=1e-4)
    sae = made_on(tmp_path, settings, hook_point, d_in)
    sae.check_fits(gpt2)
    before = sae.encode(raw)
    torch.testing.assert_close(before, sae.encode(processed), atol=1e-3, rtol=1e-3)
    assert sae.warnings == []


@pytest.mark.parametrize(
    ("settings", "hook_point", "said"),
    [
        (
            {"fold_ln": True},
            "blocks.1.mlp.hook_in",
            "fold_ln, whose effect at blocks.1.mlp.hook_in",
        ),
        ({"fold_value_biases": True}, "blocks.1.attn.hook_z", "with fold_value_biases"),
        ({"refactor_factored_attn_matrices": True}, "blocks.1.attn.hook_z", "refactor_factored"),
        ({"center_writing_weights": True}, "blocks.1.attn.q.hook_out", "center_writing_weights"),
        ({"revision": "step1000"}, STREAM, "loaded with revision='step1000'"),
        ({"checkpoint_value": 5, "fold_ln": True}, STREAM, "loaded with checkpoint_value=5"),
    ],
)
def test_processing_that_cannot_be_applied_is_refused(
    tmp_path: Path, gpt2: LanguageModel, settings: dict[str, Any], hook_point: str, said: str
) -> None:
    sae = made_on(tmp_path, settings, hook_point)
    with pytest.raises(CandidateError, match="SAE s was trained on a model loaded with") as caught:
        sae.check_fits(gpt2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_was_switched_off_is_no_processing(tmp_path: Path, gpt2: LanguageModel) -> None:
    sae = made_on(tmp_path, {"fold_ln": False, "revision": None}, "blocks.1.mlp.hook_in")
    sae.check_fits(gpt2)
    assert sae.warnings == []


def test_models_with_rms_norms_are_not_centred(tmp_path: Path, llama: LanguageModel) -> None:
    """TransformerLens leaves their weights alone, whatever it is asked."""
    from sae_lens import SAE

    sae = made_on(tmp_path, {"center_writing_weights": True})
    sae.check_fits(llama)
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0)) + 1
    with torch.no_grad():
        expected = SAE.load_from_disk(tmp_path / "s", device="cpu").encode(x)
    torch.testing.assert_close(sae.encode(x), expected, atol=1e-5, rtol=1e-5)


def test_a_head_alone_is_refused(tmp_path: Path) -> None:
    folder = random_sae(
        tmp_path / "s", "standard", 8, "blocks.1.attn.hook_z", metadata={"hook_head_index": 3}
    )
    with pytest.raises(CandidateError, match=r"reads head 3 of blocks.1.attn.hook_z alone"):
        load(folder)


def test_every_registry_entry_with_processing_is_honoured() -> None:
    """SAELens' directory asks for nothing that would be refused at its own hook points."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from safesail.sparse_autoencoder import directory
    from safesail.sparse_autoencoder._processing import needs_centring

    processed = {
        release: (lookup.config_overrides or {})["model_from_pretrained_kwargs"]
        for release, lookup in get_pretrained_saes_directory().items()
        if "model_from_pretrained_kwargs" in (lookup.config_overrides or {})
    }
    assert "gpt2-small-res-jb" in processed
    for entry in directory():
        if entry.release in processed and entry.hook_point:
            points = (entry.hook_point, entry.hook_point)
            asked = processed[entry.release]
            assert needs_centring(asked, points, norms_centre=True, source="s")
