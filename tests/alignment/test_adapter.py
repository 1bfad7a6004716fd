"""Adapters: the base as it was, the first update in the span, and the same after saving."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tiny_alignment as tiny
import torch
from peft import PeftModel

from safesail.alignment import (
    adapter_parameters,
    fill_subspace,
    load_adapter,
    make_adapter,
    make_plain_adapter,
    provenance_of,
    save_adapter,
)
from safesail.alignment._plan import Plan, lora_configuration
from safesail.alignment._provenance import PROVENANCE_FILE, base_checksum
from safesail.alignment._sites import ROLES, find_sites, norm_gain, roles_of
from safesail.errors import AlignmentError, StorageError

ALL_STREAMS = tuple(range(models.LAYERS + 1))
READ, WRITTEN = ALL_STREAMS[:-1], ALL_STREAMS[1:]


@pytest.fixture
def llama(tmp_path: Path) -> Any:
    return tiny.load(models.tiny_llama(tmp_path / "llama"))


@pytest.mark.parametrize("kind", [*tiny.MAKERS])
def test_before_training_the_model_is_the_base_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    before, checksum = tiny.logits(model), base_checksum(model)
    adapted = make_adapter(model, tiny.subspace(*ALL_STREAMS), modules=roles_of(model), rank=4)
    assert torch.equal(tiny.logits(adapted), before)
    tiny.step(adapted)
    tiny.step(adapted)
    assert (tiny.logits(adapted) - before).abs().max() > 1e-4
    assert base_checksum(adapted) == checksum
    assert torch.equal(tiny.logits(adapted.unload()), before)


@pytest.mark.parametrize("kind", [*tiny.MAKERS])
def test_the_first_update_lies_in_the_span(kind: str, tmp_path: Path) -> None:
    """Writers after their norm's gain, readers before theirs."""
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    subspace = tiny.subspace(*ALL_STREAMS)
    sites = find_sites(model, roles_of(model))
    gains = {site.norm: norm_gain(model.get_submodule(site.norm)) for site in sites if site.norm}
    adapted = make_adapter(model, subspace, modules=roles_of(model), rank=4)
    tiny.step(adapted)
    for site in sites:
        change = tiny.delta(adapted, site.module)
        assert change.norm() > 0, site.module
        gain = gains[site.norm] if site.norm else torch.ones(models.D_MODEL, dtype=torch.float64)
        # Columns of the stream: what is written, or what is read.
        columns = change if site.kind == "writer" else change.T
        basis = subspace.at(site.stream).basis
        # One gain or two are so near 0 that they count as larger.
        floored = gain.abs().min() < 0.01 * gain.abs().median()
        outside = tiny.left_outside(gain[:, None] * columns, basis)
        assert outside < (1e-3 if floored else 1e-5), site.module
        if site.norm is not None:
            # Without the gain it would not lie there.
            assert tiny.left_outside(columns, basis) > 0.05, site.module


@pytest.mark.parametrize("kind", ["gemma2", "gemma3"])
def test_what_reaches_the_stream_changes_in_the_span_and_along_itself(
    kind: str, tmp_path: Path
) -> None:
    """Through the whole norm of Gemma, which also divides by the length of what it is given."""
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    subspace = tiny.subspace(*WRITTEN)
    (site,) = [s for s in find_sites(model, ["o"]) if s.block == 1]
    norm = model.get_submodule(site.norm)
    adapted = make_adapter(model, subspace, modules=["o"], rank=4)
    given: list[torch.Tensor] = []
    norm.register_forward_hook(lambda module, args, output: given.append(output.detach()))
    # Only this module may differ.
    for name, value in adapted.named_parameters():
        value.requires_grad_("lora_" in name and "layers.1." in name)
    tiny.logits(adapted)
    tiny.step(adapted)
    tiny.logits(adapted)
    before, after = given[0].reshape(-1, 32).double(), given[-1].reshape(-1, 32).double()
    u = torch.from_numpy(subspace.at(site.stream).basis).double()
    for old, new in zip(before, after, strict=True):
        span = torch.linalg.qr(torch.cat([u, old[:, None]], dim=1)).Q
        change = new - old
        assert (change - span @ (span.T @ change)).norm() < 1e-4 * change.norm() + 1e-6
    assert (after - before).norm() > 1e-3


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "gpt2"])
@torch.no_grad()
def test_readers_see_the_stream_through_the_basis_alone(kind: str, tmp_path: Path) -> None:
    """A norm(x) depends on U^T x and the norm's length only."""
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    subspace = tiny.subspace(*READ)
    (site,) = [s for s in find_sites(model, ["q", "k", "v"]) if s.block == 2][:1]
    norm = model.get_submodule(site.norm)
    adapted = make_adapter(model, subspace, modules=["q", "k", "v"], rank=4)
    layer = adapted.base_model.model.get_submodule(site.module)
    u = torch.from_numpy(subspace.at(2).basis)
    x = torch.randn(50, 32)
    x -= x.mean(dim=1, keepdim=True)
    # Moved where U does not look (nor the mean), and kept as long as it was.
    away = torch.randn(50, 32)
    blind = torch.linalg.qr(torch.cat([u, torch.ones(32, 1)], dim=1)).Q
    away -= away @ blind @ blind.T
    seen = x @ u @ u.T
    seen -= seen.mean(dim=1, keepdim=True)
    rest = x - x @ blind @ blind.T
    moved = x - rest + away * (rest.norm(dim=1) / away.norm(dim=1))[:, None]
    read = [layer.lora_A["default"](norm(state)) for state in (x, moved)]
    torch.testing.assert_close(read[0], read[1], rtol=1e-3, atol=1e-4)
    assert (norm(x) - norm(moved)).abs().max() > 0.5


def test_rank_and_alpha_follow_the_basis(llama: Any) -> None:
    first, second = tiny.subspace(1, rank=2), tiny.subspace(2, rank=6)
    subspace = type(first)("tiny", first.layers + second.layers, "abs", "weighted", "sae")
    adapted = make_adapter(llama, subspace, rank=4)
    records = {one.module: one for one in provenance_of(adapted).modules}
    assert {one.rank for one in records.values()} == {2, 4}
    for path, one in records.items():
        layer = adapted.base_model.model.get_submodule(path)
        assert layer.scaling["default"] == 1
        assert layer.lora_A["default"].weight.shape[0] == one.rank
        assert one.rank == (2 if one.stream == 1 else 4)
    # Of a basis with more directions than the rank, the first are taken.
    writer = adapted.base_model.model.model.layers[1].self_attn.o_proj.lora_B["default"].weight
    np.testing.assert_allclose(writer.detach(), second.layers[0].basis[:, :4], atol=1e-6)


@pytest.mark.parametrize("uncovered", ["lora", "nearest", "none"])
def test_layers_without_a_basis(llama: Any, uncovered: Any) -> None:
    adapted = make_adapter(llama, tiny.subspace(1), uncovered=uncovered, rank=4)
    found = provenance_of(adapted)
    # Stream 1 is written by block 0 and read by block 1.
    own = {one.module for one in found.modules if one.start == "subspace"}
    assert own == {
        "model.layers.0.self_attn.o_proj",
        *(f"model.layers.1.self_attn.{x}_proj" for x in "qkv"),
    }
    others = [one for one in found.modules if one.start != "subspace"]
    assert len(others) == (0 if uncovered == "none" else 8)
    assert {one.start for one in others} <= {uncovered}
    assert {one.stream for one in others} <= ({1} if uncovered == "nearest" else {None})
    assert found.covered == ((0, 1) if uncovered == "none" else ())
    assert found.uncovered == ((2,) if uncovered == "none" else (0, 1, 2))
    real = sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n)
    assert found.parameters == found.trainable == real
    assert torch.equal(tiny.logits(adapted), tiny.logits(adapted.unload()))


def test_a_basis_of_one_blocks_output_serves_writers_alone(llama: Any) -> None:
    adapted = make_adapter(llama, tiny.subspace(1, writers_only=True), uncovered="none", rank=4)
    assert [one.module for one in provenance_of(adapted).modules] == [
        "model.layers.0.self_attn.o_proj"
    ]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("modules", [("q", "k", "v", "o"), ROLES])
def test_the_number_of_parameters_is_the_formulas(
    kind: str, modules: tuple[str, ...], tmp_path: Path
) -> None:
    model = tiny.load(tiny.MAKERS[kind](tmp_path))
    expected = adapter_parameters(model.config, rank=4, modules=modules)
    adapted = make_adapter(model, tiny.subspace(*ALL_STREAMS), modules=modules, rank=4)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == expected
    assert provenance_of(adapted).parameters == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        # Published configurations of google/gemma-2-2b and google/gemma-2-9b.
        ({"hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
              "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216}, 6_389_760),
        ({"hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16,
              "num_key_value_heads": 8, "head_dim": 256, "intermediate_size": 14336}, 17_891_328),
    ],
)  # fmt: skip
def test_gemma_2_has_the_published_number_of_parameters(
    shape: dict[str, int], expected: int
) -> None:
    from peft import get_peft_model
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**shape)
    assert adapter_parameters(config, rank=16) == expected
    with torch.device("meta"):
        model = Gemma2ForCausalLM(config)
    plans = [Plan(site, "lora", None, 16) for site in find_sites(model)]
    adapted = get_peft_model(model, lora_configuration(plans, 16))
    assert sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n) == expected


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_saved_loaded_and_merged_it_does_the_same(kind: str, tmp_path: Path) -> None:
    base = tiny.MAKERS[kind](tmp_path / "base")
    model = tiny.load(base)
    adapted = make_adapter(
        model, tiny.subspace(1, 2), modules=roles_of(model), rank=4, uncovered="lora"
    )
    tiny.step(adapted)
    tiny.step(adapted)
    trained = tiny.logits(adapted)
    assert (trained - tiny.logits(tiny.load(base))).abs().max() > 1e-3
    folder = tmp_path / "adapter"
    save_adapter(adapted, folder)
    plain = PeftModel.from_pretrained(tiny.load(base), str(folder))
    assert torch.equal(tiny.logits(plain), trained)
    assert torch.equal(tiny.logits(load_adapter(tiny.load(base), folder)), trained)
    merged = plain.merge_and_unload()
    assert (tiny.logits(merged) - trained).abs().max() < 1e-5
    # Nothing but safetensors, JSON and the card.
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json", ".md"}
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert "| 2 | 0.5 | explanation 2/2 |" in (folder / "README.md").read_text(encoding="utf-8")


def frozen_factors(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if ("o_proj.lora_B" in name or ("o_proj" not in name and "lora_A" in name))
    }


def test_a_frozen_basis_stays_frozen(llama: Any, tmp_path: Path) -> None:
    adapted = make_adapter(llama, tiny.subspace(*ALL_STREAMS), rank=4, basis="frozen")
    began = frozen_factors(adapted)
    found = provenance_of(adapted)
    assert 0 < found.trainable < found.parameters

    def check(model: Any, *, trained: bool = True) -> None:
        for name, value in model.named_parameters():
            expected = trained and "lora_" in name and name not in began
            assert value.requires_grad == expected, name

    check(adapted)
    adapted.set_adapter("default")
    check(adapted)
    adapted.set_requires_grad("default")
    check(adapted)
    for _ in range(3):
        tiny.step(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    fresh = tiny.load(tmp_path / "llama")
    loaded = load_adapter(fresh, tmp_path / "adapter", trainable=True)
    check(loaded)
    loaded.set_adapter("default")
    check(loaded)
    # A further adapter comes and goes.
    loaded.add_adapter("other", adapted.peft_config["default"])
    loaded.set_adapter("other")
    loaded.set_adapter("default")
    for name, value in loaded.named_parameters():
        if ".default." in name:
            assert value.requires_grad == (name not in began), name
    tiny.step(loaded)
    for name, value in frozen_factors(loaded).items():
        if ".default." in name:
            assert torch.equal(value, began[name]), name
    check(load_adapter(tiny.load(tmp_path / "llama"), tmp_path / "adapter"), trained=False)


def test_every_update_of_a_frozen_basis_stays_in_the_span(llama: Any) -> None:
    subspace = tiny.subspace(*WRITTEN)
    adapted = make_adapter(llama, subspace, rank=4, modules=["o", "down"], basis="frozen")
    for _ in range(4):
        tiny.step(adapted)
    for one in provenance_of(adapted).modules:
        change = tiny.delta(adapted, one.module)
        assert tiny.left_outside(change, subspace.at(one.stream).basis) < 1e-5


def test_plain_lora_has_the_length_of_a_basis(llama: Any) -> None:
    before = tiny.logits(llama)
    adapted = make_plain_adapter(llama, rank=4)
    assert torch.equal(tiny.logits(adapted), before)
    for name, value in adapted.named_parameters():
        if "lora_A" in name:
            assert float(value.detach().norm()) == pytest.approx(2)
        if "lora_B" in name:
            assert not value.any()
    found = provenance_of(adapted)
    assert found.parameters == adapter_parameters(llama.config, rank=4)
    assert (found.route, found.covered, found.subspace) == ("lora", (), None)


def test_random_factors_follow_the_seed_and_leave_the_callers_alone(tmp_path: Path) -> None:
    folder = models.tiny_llama(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (
        make_adapter(tiny.load(folder), tiny.subspace(1), rank=4, seed=seed) for seed in (0, 0, 1)
    )
    torch.manual_seed(3)
    make_plain_adapter(tiny.load(folder), rank=4)
    loaded = tiny.load(folder)
    torch.manual_seed(3)
    make_plain_adapter(loaded, rank=4)
    assert torch.equal(torch.rand(1), expected)
    name = "base_model.model.model.layers.2.self_attn.q_proj.lora_A.default.weight"
    drawn = [model.get_parameter(name) for model in (first, again, other)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_provenance_names_each_feature(llama: Any, tmp_path: Path) -> None:
    adapted = make_adapter(llama, tiny.subspace(1), rank=4)
    save_adapter(adapted, tmp_path / "adapter", training={"steps": 3})
    saved = json.loads((tmp_path / "adapter" / PROVENANCE_FILE).read_text(encoding="utf-8"))
    assert saved["layers"][0]["features"][2]["explanation"] == "explanation 1/2"
    assert saved["training"] == {"steps": 3}
    assert saved["uncovered_blocks"] == [0, 1, 2]
    assert set(saved["versions"]) == {"safesail", "peft", "torch", "transformers"}
    found = provenance_of(load_adapter(tiny.load(tmp_path / "llama"), tmp_path / "adapter"))
    assert found == provenance_of(adapted)
    names = [f.explanation for f in found.features_of("model.layers.0.self_attn.o_proj")]
    assert names == [f"explanation 1/{number}" for number in range(4)]
    assert found.features_of("model.layers.0.self_attn.q_proj") == ()


def test_what_does_not_fit_is_refused(llama: Any, tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="64 numbers per direction, the model's stream 32"):
        make_adapter(llama, tiny.subspace(1, d_model=64))
    with pytest.raises(AlignmentError, match=r"no module chosen reads or writes blocks\.6\."):
        make_adapter(llama, tiny.subspace(7))
    with pytest.raises(AlignmentError, match=r"no module chosen reads or writes blocks\.0\."):
        make_adapter(llama, tiny.subspace(0), modules=["o"])
    with pytest.raises(AlignmentError, match="a rank of 0"):
        make_adapter(llama, tiny.subspace(1), rank=0)
    with pytest.raises(AlignmentError, match="no layer"):
        make_adapter(llama, tiny.subspace())
    llama.config._name_or_path = "google/gemma-2-2b"
    with pytest.raises(AlignmentError, match="made for 'tiny', the model is 'google/gemma-2-2b'"):
        make_adapter(llama, tiny.subspace(1))
    llama.config._name_or_path = "someone/Tiny"
    adapted = make_adapter(llama, tiny.subspace(1))
    with pytest.raises(AlignmentError, match="already has an adapter"):
        make_adapter(adapted, tiny.subspace(1))


def test_folders_that_exist_or_are_something_else(llama: Any, tmp_path: Path) -> None:
    adapted = make_adapter(llama, tiny.subspace(1), rank=4)
    folder = tmp_path / "adapter"
    save_adapter(adapted, folder)
    with pytest.raises(AlignmentError, match="exists already"):
        save_adapter(adapted, folder)
    save_adapter(adapted, folder, overwrite=True)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(AlignmentError, match="no adapter made by safesail"):
        load_adapter(tiny.load(tmp_path / "llama"), tmp_path / "llama")
    with pytest.raises(AlignmentError, match="made on other weights"):
        load_adapter(tiny.load(models.tiny_llama(tmp_path / "other", seed=1)), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AlignmentError, match="cannot load adapter"):
        load_adapter(tiny.load(tmp_path / "llama"), folder)
    (folder / PROVENANCE_FILE).write_text("{}")
    with pytest.raises(StorageError, match="cannot read"):
        load_adapter(tiny.load(tmp_path / "llama"), folder)


def test_a_base_that_has_changed_is_not_saved_for(llama: Any, tmp_path: Path) -> None:
    adapted = make_adapter(llama, tiny.subspace(1), rank=4)
    with torch.no_grad():
        llama.model.layers[0].self_attn.q_proj.base_layer.weight[0, 0] += 1
    with pytest.raises(AlignmentError, match="weights have changed"):
        save_adapter(adapted, tmp_path / "adapter")


def test_a_tied_base_is_left_alone(tmp_path: Path) -> None:
    base = models.tiny_llama(tmp_path / "base", tie_word_embeddings=True)
    model = tiny.load(base)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    before = tiny.logits(model)
    adapted = make_adapter(model, tiny.subspace(1), rank=4)
    assert torch.equal(tiny.logits(adapted), before)
    tiny.step(adapted)
    trained = tiny.logits(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny.load(base), str(tmp_path / "adapter"))
    assert (tiny.logits(loaded.merge_and_unload()) - trained).abs().max() < 1e-5


def test_in_half_precision_the_model_is_the_base_too(tmp_path: Path) -> None:
    model = tiny.load(models.tiny_llama(tmp_path)).to(torch.bfloat16)
    before, checksum = tiny.logits(model), base_checksum(model)
    adapted = make_adapter(model, tiny.subspace(1, 2), rank=4)
    assert torch.equal(tiny.logits(adapted), before)
    assert {p.dtype for n, p in adapted.named_parameters() if "lora_" in n} == {torch.float32}
    tiny.step(adapted)
    assert base_checksum(adapted) == checksum
    assert provenance_of(adapted).base_dtype == "bfloat16"


def test_gemma_3_with_images_is_adapted_in_its_language_part(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 400,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config).eval()
    before = tiny.logits(model)
    adapted = make_adapter(model, tiny.subspace(1, 2), modules=ROLES, rank=4)
    assert torch.equal(tiny.logits(adapted), before)
    changed = {n.partition(".lora_")[0] for n, _ in adapted.named_parameters() if ".lora_" in n}
    assert len(changed) == 8 * len(ROLES)
    assert all(".language_model.layers." in name for name in changed)


def test_a_basis_is_filled_up_with_random_directions() -> None:
    thin = tiny.subspace(1, 2, rank=1)
    filled = fill_subspace(thin, 6, seed=4)
    assert filled.route == "sae + random"
    for old, new in zip(thin.layers, filled.layers, strict=True):
        assert np.array_equal(new.basis[:, :1], old.basis)
        assert new.basis.dtype == np.float32
        np.testing.assert_allclose(new.basis.T @ new.basis, np.eye(6), atol=1e-6)
        assert new.features == old.features
    assert fill_subspace(thin, 6, seed=4).fingerprint == filled.fingerprint
    assert fill_subspace(thin, 6, seed=5).fingerprint != filled.fingerprint
    assert fill_subspace(filled, 4) == filled


def test_without_peft_one_line_says_what_to_install(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(AlignmentError, match=r"run `pip install 'safesail\[align\]'`"):
        make_adapter(llama, tiny.subspace(1))


def test_the_package_loads_neither_torch_nor_peft() -> None:
    code = (
        "import sys, safesail.alignment as a; a.Provenance; a.Subspace; a.fill_subspace;"
        "print(*{'torch', 'peft', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
