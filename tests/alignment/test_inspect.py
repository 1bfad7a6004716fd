"""Reading adapters back, against dense arithmetic and planted directions."""

from __future__ import annotations

import json
from pathlib import Path

import models
import numpy as np
import pytest
import tiny_alignment as tiny
import torch
from foreign_adapter import foreign_adapter

from cli._alignment import print_reading
from safesail.alignment import (
    FeatureDirections,
    LayerSubspace,
    Subspace,
    SubspaceFeature,
    inspect_adapter,
    make_adapter,
    save_adapter,
    stream_site,
)
from safesail.alignment._inspect import chance_of_best
from safesail.alignment._sites import find_sites, norm_gain, roles_of
from safesail.errors import AlignmentError
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

D = models.D_MODEL


def directions(stream: int, count: int = 96, chosen: tuple[int, ...] = ()) -> FeatureDirections:
    drawn = torch.randn(count, D, generator=torch.Generator().manual_seed(stream))
    units = torch.nn.functional.normalize(drawn, dim=1)
    words = {feature: f"feature {feature}" for feature in range(0, count, 2)}
    return FeatureDirections("sae", stream, units, words, chosen)


def feature_subspace(of: FeatureDirections, features: tuple[int, ...]) -> Subspace:
    basis = np.linalg.qr(of.directions[list(features)].T.numpy())[0]
    named = tuple(SubspaceFeature(f, 1.0, 1.0, None, ()) for f in features)
    layer = LayerSubspace(
        of.stream, f"blocks.{of.stream - 1}.hook_resid_post", of.sae, basis, named, np.ones(4)
    )
    return Subspace("tiny", (layer,), "abs", "weighted", "sae")


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "gpt2"])
def test_an_adapter_with_a_frozen_basis_lies_in_the_span_of_its_features(
    kind: str, tmp_path: Path
) -> None:
    """Readers and writers, through the norms between them and the stream."""
    base = tiny.MAKERS[kind](tmp_path / "base")
    sae = directions(2)
    subspace = feature_subspace(sae, (3, 10, 50, 7))
    model = tiny.load(base)
    adapted = make_adapter(
        model, subspace, modules=roles_of(model), rank=4, uncovered="none", basis="frozen"
    )
    for _ in range(3):
        tiny.step(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    found = inspect_adapter(tmp_path / "adapter", tiny.load(base), [sae], subspace=subspace)
    assert found.route == "sae"
    assert found.unread == ()
    assert {one.kind for one in found.modules} == {"reader", "writer"}
    for one in found.modules:
        assert one.norm == pytest.approx(float(tiny.delta(adapted, one.module).norm()), rel=1e-4)
        assert one.norm > 0
        (reading,) = one.saes
        # The features are those that the provenance names.
        assert reading.chosen is not None
        assert (reading.chosen.directions, reading.chosen.rank) == (4, 4)
        assert reading.chosen.share == pytest.approx(1, abs=1e-4)
        assert reading.chosen.chance == 4 / D
        assert one.basis is not None
        assert one.basis.share == pytest.approx(1, abs=1e-4)
    assert json.loads(json.dumps(found.to_json()))["modules"][0]["saes"][0]["chance"] == 1 / D


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True])
def test_any_lora_is_read_as_dense_arithmetic_has_it(
    kind: str, rslora: bool, tmp_path: Path
) -> None:
    base = tiny.MAKERS[kind](tmp_path / "base")
    adapted = foreign_adapter(
        base, tmp_path / "lora", use_rslora=rslora, alpha_pattern={"o_proj": 5}
    )
    sae = [directions(stream, chosen=(1, 2, 3, 2)) for stream in range(4)]
    model = tiny.load(base)
    found = inspect_adapter(tmp_path / "lora", model, sae, top=5)
    assert found.route == "unknown"
    sites = {site.module: site for site in find_sites(model, roles_of(model))}
    assert {one.module for one in found.modules} == set(sites)
    for one in found.modules:
        site = sites[one.module]
        layer = adapted.base_model.model.get_submodule(one.module)
        change = layer.get_delta_weight("default").detach().double()
        change = change.T if kind == "gpt2" else change
        assert one.norm == pytest.approx(float(change.norm()), rel=1e-5)
        columns = change.T if one.kind == "reader" else change
        if site.norm is not None:
            columns = norm_gain(model.get_submodule(site.norm))[:, None] * columns
        units = sae[one.stream].directions.double()
        shares = (units @ columns).square().sum(1) / columns.square().sum()
        (reading,) = one.saes
        expected = shares.topk(5)
        assert [f.feature for f in reading.top] == expected.indices.tolist()
        assert [f.share for f in reading.top] == pytest.approx(expected.values.tolist(), rel=1e-4)
        for f in reading.top:
            assert f.explanation == (None if f.feature % 2 else f"feature {f.feature}")
        span = torch.linalg.qr(units[[1, 2, 3]].T).Q
        in_span = float((span.T @ columns).square().sum() / columns.square().sum())
        assert reading.chosen is not None
        assert (reading.chosen.directions, reading.chosen.rank) == (4, 3)
        assert reading.chosen.share == pytest.approx(in_span, rel=1e-5)


def test_a_module_that_began_with_the_nearest_basis_is_measured_in_that(tmp_path: Path) -> None:
    base = models.tiny_llama(tmp_path / "base")
    subspace = feature_subspace(directions(2), (3, 10, 50, 7))
    adapted = make_adapter(
        tiny.load(base), subspace, rank=4, uncovered="nearest", basis="frozen", modules=["q", "o"]
    )
    for _ in range(3):
        tiny.step(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    found = inspect_adapter(tmp_path / "adapter", tiny.load(base), subspace=subspace).modules
    assert {one.stream for one in found} == {0, 1, 2, 3}
    for one in found:
        assert one.basis is not None
        assert one.basis.share == pytest.approx(1, abs=1e-4)


def test_modules_that_no_sae_reads_are_printed_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = models.tiny_llama(tmp_path / "base")
    foreign_adapter(base, tmp_path / "lora")
    model = tiny.load(base)
    for saes in ([directions(2)], []):
        found = inspect_adapter(tmp_path / "lora", model, saes)
        print_reading(found)
        out, err = capsys.readouterr()
        lines = [line.split() for line in out.splitlines()[3:]]
        assert [(int(line[0]), line[1]) for line in lines if line] == [
            (one.block, one.module.rpartition(".")[2]) for one in found.modules
        ]
        for line, one in zip(lines, found.modules, strict=True):
            assert line[2] == f"{one.norm:.3f}"
            assert (line[5:] == ["–"] * 4) == (not one.saes)
        unseen = sum(not one.saes for one in found.modules)
        assert f"{unseen} of {len(found.modules)} modules read or write" in err
        assert "more than chance is no sign that features had a part" in err


def test_a_planted_feature_stands_out(tmp_path: Path) -> None:
    base = models.tiny_gemma2(tmp_path / "base")
    sae = directions(2)
    adapted = make_adapter(
        tiny.load(base), feature_subspace(sae, (42,)), rank=1, uncovered="none", modules=["o"]
    )
    layer = adapted.base_model.model.model.layers[1].self_attn.o_proj
    with torch.no_grad():
        layer.lora_A["default"].weight.normal_()
    save_adapter(adapted, tmp_path / "adapter")
    (one,) = inspect_adapter(tmp_path / "adapter", tiny.load(base), [sae]).modules
    (reading,) = one.saes
    assert reading.top[0].feature == 42
    assert reading.top[0].share == pytest.approx(1, abs=1e-5)
    # The others share what their cosine with it gives them.
    cosines = (sae.directions @ sae.directions[42]).square().topk(10)
    assert [f.feature for f in reading.top] == cosines.indices.tolist()
    assert [f.share for f in reading.top] == pytest.approx(cosines.values.tolist(), abs=1e-4)
    assert reading.chance < reading.chance_best < 0.5


def test_chance_is_what_random_directions_hold() -> None:
    seen = torch.randn(D, 3, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.2])
    generator = np.random.default_rng(0)
    found = chance_of_best(seen, 200, generator)
    drawn = generator.normal(size=(300, 200, D))
    drawn /= np.linalg.norm(drawn, axis=2, keepdims=True)
    shares = ((drawn @ seen.numpy()) ** 2).sum(2) / float(seen.square().sum())
    assert shares.mean() == pytest.approx(1 / D, rel=0.05)
    best = shares.max(axis=1)
    assert found == pytest.approx(best.mean(), abs=4 * best.std() / 20**0.5)
    assert chance_of_best(torch.zeros(D, 3, dtype=torch.float64), 200, generator) == 0


def test_features_that_the_sae_does_not_have_are_refused(tmp_path: Path) -> None:
    """Of another SAE of the same name, narrower than the one that made the adapter."""
    base = models.tiny_llama(tmp_path / "base")
    adapted = make_adapter(
        tiny.load(base), feature_subspace(directions(2), (3, 95)), rank=2, uncovered="none"
    )
    save_adapter(adapted, tmp_path / "adapter")
    message = r"sae has 95 features and no feature 95, which the adapter's provenance names"
    with pytest.raises(AlignmentError, match=message):
        inspect_adapter(tmp_path / "adapter", tiny.load(base), [directions(2, 95)])
    with pytest.raises(AlignmentError, match="no feature 96, which was chosen"):
        inspect_adapter(tmp_path / "adapter", tiny.load(base), [directions(2, chosen=(1, 96))])
    # Of another stream, the provenance says nothing of it.
    assert inspect_adapter(tmp_path / "adapter", tiny.load(base), [directions(1, 95)]).modules


def test_a_fresh_adapter_changes_nothing(tmp_path: Path) -> None:
    base = models.tiny_llama(tmp_path / "base")
    adapted = make_adapter(tiny.load(base), tiny.subspace(1), rank=4)
    save_adapter(adapted, tmp_path / "adapter")
    for one in inspect_adapter(tmp_path / "adapter", tiny.load(base), [directions(1)]).modules:
        assert one.norm == 0
        assert all(reading.top[0].share == 0 for reading in one.saes)


def test_directions_of_an_sae(tmp_path: Path) -> None:
    folder = models.random_sae(tmp_path / "sae", "jumprelu", hook_point="blocks.1.hook_mlp_out")
    (candidate,) = find_candidates([str(folder)], tmp_path)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    found = FeatureDirections.of_sae(sae, {3: "words"}, [3, 4])
    assert (found.stream, found.writers_only, found.chosen) == (2, True, (3, 4))
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(96))
    base = models.tiny_llama(tmp_path / "base")
    foreign_adapter(base, tmp_path / "lora")
    reading = inspect_adapter(tmp_path / "lora", tiny.load(base), [found])
    assert {one.module for one in reading.modules if one.saes} == {
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.mlp.down_proj",
    }


@pytest.mark.parametrize(
    ("hook_point", "expected"),
    [
        ("blocks.3.hook_resid_pre", (3, False)),
        ("blocks.3.hook_resid_post", (4, False)),
        ("blocks.3.hook_resid_mid", (4, True)),
        ("blocks.3.hook_mlp_out", (4, True)),
        ("blocks.13.hook_attn_out", (14, True)),
    ],
)
def test_states_of_the_stream(hook_point: str, expected: tuple[int, bool]) -> None:
    assert stream_site(hook_point) == expected


@pytest.mark.parametrize("hook_point", ["blocks.3.attn.hook_z", "blocks.3.mlp.hook_post", "embed"])
def test_points_off_the_stream(hook_point: str) -> None:
    with pytest.raises(AlignmentError, match=f"no module reads or writes .* at {hook_point}"):
        stream_site(hook_point)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    base = models.tiny_llama(tmp_path / "base")
    model = tiny.load(base)
    with pytest.raises(AlignmentError, match="is no adapter of PEFT"):
        inspect_adapter(base, model)
    foreign_adapter(base, tmp_path / "dora", use_dora=True)
    with pytest.raises(AlignmentError, match=r"no plain LoRA adapter \(DoRA\)"):
        inspect_adapter(tmp_path / "dora", model)
    foreign_adapter(base, tmp_path / "lora")
    wide = FeatureDirections("wide", 1, torch.eye(64), {})
    with pytest.raises(AlignmentError, match="wide has 64 numbers per direction"):
        inspect_adapter(tmp_path / "lora", model, [wide])
    other = tiny.load(models.tiny_llama(tmp_path / "other", num_key_value_heads=4))
    with pytest.raises(AlignmentError, match=r"k_proj is 16 x 32, the model's 32 x 32"):
        inspect_adapter(tmp_path / "lora", other)
    gpt2 = tiny.load(models.tiny_gpt2(tmp_path / "gpt2"))
    with pytest.raises(AlignmentError, match="changes no module that this model has"):
        inspect_adapter(tmp_path / "lora", gpt2)
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AlignmentError, match="cannot read adapter"):
        inspect_adapter(tmp_path / "lora", model)
