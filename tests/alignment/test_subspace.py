"""A subspace is kept whole, and what is damaged is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safesail.alignment import LayerSubspace, Subspace, SubspaceFeature
from safesail.errors import InputError, StorageError


def layer(stream: int, rank: int = 3) -> LayerSubspace:
    generator = np.random.default_rng(stream)
    basis = np.linalg.qr(generator.standard_normal((16, rank)))[0].astype(np.float32)
    features = (
        SubspaceFeature(7, -0.25, 0.25, "weapons – “knives”", ("violence", "violence/arms")),
        SubspaceFeature(3, 0.125, 0.125, None, ()),
    )
    spectrum = np.array([3.0, 2.0, 1.0, 0.5], dtype=np.float32)
    return LayerSubspace(
        stream, f"blocks.{stream - 1}.hook_resid_post", "sae-a", basis, features, spectrum
    )


def subspace() -> Subspace:
    layers = (layer(2), replace(layer(5, rank=2), writers_only=True))
    return Subspace("org/model", layers, "abs", "weighted", "sae")


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    made = subspace()
    made.save(tmp_path / "new" / "folder")
    found = Subspace.load(tmp_path / "new" / "folder")
    assert replace(found, layers=()) == replace(made, layers=())
    for one, other in zip(found.layers, made.layers, strict=True):
        np.testing.assert_array_equal(one.basis, other.basis)
        np.testing.assert_array_equal(one.spectrum, other.spectrum)
        assert one.basis.dtype == np.float32
        assert one.features == other.features
        assert (one.stream, one.hook_point, one.sae) == (other.stream, other.hook_point, other.sae)
        assert one.writers_only == other.writers_only
    assert found.fingerprint == made.fingerprint


def test_the_fingerprint_follows_what_is_in_it() -> None:
    made = subspace()
    first = made.layers[0]
    turned = replace(first, basis=-first.basis)
    named = replace(first, features=first.features[:1])
    prints = {
        made.fingerprint,
        replace(made, layers=(turned, made.layers[1])).fingerprint,
        replace(made, layers=(named, made.layers[1])).fingerprint,
        replace(made, route="random").fingerprint,
    }
    assert len(prints) == 4


def test_layers_are_found_by_stream_and_must_ascend() -> None:
    made = subspace()
    assert made.at(5) is made.layers[1]
    assert made.at(3) is None
    with pytest.raises(ValueError, match="ascend"):
        replace(made, layers=made.layers[::-1])
    with pytest.raises(ValueError, match="ascend"):
        replace(made, layers=(layer(2), layer(2)))


def test_an_empty_folder_is_no_subspace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"subspace\.safetensors is missing"):
        Subspace.load(tmp_path)


@pytest.mark.parametrize("damage", ["tensors", "cut", "description", "other", "version"])
def test_damage_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    subspace().save(tmp_path)
    tensors, description = tmp_path / "subspace.safetensors", tmp_path / "subspace.json"
    if damage == "tensors":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:40])
    elif damage == "description":
        description.write_text(description.read_text("utf-8")[:-30], "utf-8")
    elif damage == "other":
        replace(subspace(), layers=(layer(4),)).save(tmp_path / "other")
        tensors.write_bytes((tmp_path / "other" / "subspace.safetensors").read_bytes())
    else:
        described = json.loads(description.read_text("utf-8"))
        description.write_text(json.dumps({**described, "version": 99}), "utf-8")
    with pytest.raises(StorageError, match="damaged subspace") as raised:
        Subspace.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_looking_at_a_subspace_loads_no_model_library() -> None:
    code = (
        "import sys; from safesail.alignment import Subspace, contrast_features, advise; "
        "print(*({'torch', 'peft', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == ""
