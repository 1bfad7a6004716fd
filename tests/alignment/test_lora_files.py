"""What a saved adapter is taken for: against the weights that PEFT makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import pytest
import tiny_alignment as tiny
import torch
from foreign_adapter import foreign_adapter
from peft import KasaConfig, LoraConfig, PeftModel, get_peft_model

from safesail.alignment import inspect_adapter
from safesail.alignment._lora_files import read_lora
from safesail.errors import AlignmentError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its attention has biases."""
    return models.tiny_qwen2(tmp_path_factory.mktemp("qwen"))


def change_config(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}), encoding="utf-8")


@pytest.mark.parametrize("begin", ["pissa", "pissa_niter_4", "olora"])
def test_a_begin_that_changes_the_base_is_read_once_peft_has_converted_it(
    begin: str, base: Path, tmp_path: Path
) -> None:
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        target_modules=["q_proj", "o_proj"],
        rank_pattern={"layers.1.self_attn.o_proj": 2},
        init_lora_weights=begin,
    )
    adapted = get_peft_model(tiny.load(base), config)
    initial = tmp_path / "initial"
    # As PEFT's documentation has it: or else the begin is not subtracted.
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(str(initial))
    adapted.peft_config["default"].init_lora_weights = begin
    for _ in range(3):
        tiny.step(adapted)
    adapted.save_pretrained(str(tmp_path / "as_it_is"))
    adapted.save_pretrained(
        str(tmp_path / "converted"), path_initial_model_for_weight_conversion=str(initial)
    )
    with pytest.raises(
        AlignmentError, match=f"began with '{begin}'.* `path_initial_model_for_weight_conversion`"
    ) as caught:
        inspect_adapter(tmp_path / "as_it_is", tiny.load(base))
    assert "\n" not in str(caught.value)
    found = inspect_adapter(tmp_path / "converted", tiny.load(base))
    # What training made of the whole weights, less what they were.
    before, after = tiny.load(base), adapted.merge_and_unload()
    assert len(found.modules) == 2 * models.LAYERS
    for one in found.modules:
        weights = [model.get_submodule(one.module).weight.detach() for model in (after, before)]
        change = float((weights[0] - weights[1]).norm())
        assert change > 1e-4
        assert one.norm == pytest.approx(change, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_lora_weights": "corda"}, "began with 'corda'.*path_initial_model"),
        ({"init_lora_weights": "lora_ga"}, "began with 'lora_ga'.*path_initial_model"),
        (
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
            "began with 'loftq'.*PEFT does not convert it",
        ),
        ({"init_lora_weights": "of next year"}, "began with 'of next year'"),
        ({"use_qalora": True}, r"no plain LoRA adapter \(QALoRA\)"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layers of the base repeated"),
    ],
)
def test_other_begins_and_kinds_are_refused(
    settings: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    foreign_adapter(base, tmp_path, target_modules=["q_proj"])
    change_config(tmp_path, **settings)
    with pytest.raises(AlignmentError, match=message):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"kasa_config": KasaConfig()}, "KaSA"),
        ({"alora_invocation_tokens": [5, 6], "task_type": "CAUSAL_LM"}, "aLoRA"),
    ],
)
def test_variants_of_lora_that_peft_made_are_refused(
    settings: dict[str, Any], kind: str, base: Path, tmp_path: Path
) -> None:
    foreign_adapter(base, tmp_path, **settings)
    with pytest.raises(AlignmentError, match=rf"no plain LoRA adapter \({kind}\)"):
        read_lora(tmp_path)


@pytest.mark.parametrize("begin", ["gaussian", "orthogonal", "mica", False])
def test_begins_that_leave_the_base_alone_are_read(
    begin: str | bool, base: Path, tmp_path: Path
) -> None:
    adapted = foreign_adapter(base, tmp_path, r=4, init_lora_weights=begin)
    untouched = tiny.load(base)
    for name, factors in read_lora(tmp_path).factors.items():
        layer = adapted.base_model.model.get_submodule(name)
        assert torch.equal(layer.base_layer.weight, untouched.get_submodule(name).weight)
        assert torch.equal(factors.a, layer.lora_A["default"].weight)


@pytest.mark.parametrize("rslora", [False, True])
def test_scaling_and_factors_are_those_of_the_loaded_adapter(
    rslora: bool, base: Path, tmp_path: Path
) -> None:
    foreign_adapter(
        base,
        tmp_path,
        use_rslora=rslora,
        exclude_modules=["up_proj"],
        rank_pattern={"o_proj": 2, r"layers\.[01]\.self_attn\.q_proj": 5},
        alpha_pattern={
            "^model.layers.1.self_attn.o_proj": 9,
            r".*\.[02]\.mlp\..*": 4,
            "v_proj": 1,
            "k_proj": 0.5,
        },
    )
    found = read_lora(tmp_path).factors
    loaded = PeftModel.from_pretrained(tiny.load(base), str(tmp_path))
    layers = {
        name: layer
        for name, layer in loaded.base_model.model.named_modules()
        if hasattr(layer, "lora_A")
    }
    assert set(found) == set(layers)
    assert not any("up_proj" in name for name in found)
    for name, layer in layers.items():
        assert found[name].scaling == layer.scaling["default"], name
        assert torch.equal(found[name].a, layer.lora_A["default"].weight)
        assert torch.equal(found[name].b, layer.lora_B["default"].weight)
    assert len({one.scaling for one in found.values()}) >= 6
    assert {len(one.a) for one in found.values()} == {2, 3, 5}


SELF_ATTENTION = "model.layers.{}.self_attn.{}"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"modules_to_save": ["lm_head"]}, ["lm_head.weight"]),
        (
            {"trainable_token_indices": [3, 4]},
            ["model.embed_tokens.token_adapter.trainable_tokens_delta"],
        ),
        ({"target_modules": ["o_proj", "embed_tokens"]}, ["model.embed_tokens"]),
        (
            {"target_modules": ["q_proj"], "lora_bias": True},
            [SELF_ATTENTION.format(block, "q_proj.lora_B.bias") for block in range(3)],
        ),
        (
            {"target_modules": ["k_proj"], "bias": "lora_only"},
            [SELF_ATTENTION.format(block, "k_proj.base_layer.bias") for block in range(3)],
        ),
        ({"target_modules": ["o_proj", "lm_head"]}, ["lm_head"]),
        ({"target_modules": ["o_proj"], "modules_to_save": ["2.self_attn.v_proj"]},
         [SELF_ATTENTION.format(2, "v_proj.bias"), SELF_ATTENTION.format(2, "v_proj.weight")]),
    ],
)  # fmt: skip
def test_what_goes_beyond_the_factors_is_named(
    settings: dict[str, Any], expected: list[str], qwen: Path, tmp_path: Path
) -> None:
    foreign_adapter(qwen, tmp_path, **{"target_modules": ["o_proj"], **settings})
    found = inspect_adapter(tmp_path, tiny.load(qwen))
    assert list(found.unread) == expected
    assert found.to_json()["unread"] == found.unread
    assert {one.module.rpartition(".")[2] for one in found.modules} <= {
        "o_proj",
        "q_proj",
        "k_proj",
    }


def test_an_adapter_that_changes_norms_has_no_shares(base: Path, tmp_path: Path) -> None:
    """Its modules see the stream through other gains than the base's."""
    norms = ["1.input_layernorm"]
    foreign_adapter(base, tmp_path / "a", target_modules=["q_proj"], modules_to_save=norms)
    with pytest.raises(AlignmentError, match=r"changes model\.layers\.1\.input_layernorm\.weight"):
        inspect_adapter(tmp_path / "a", tiny.load(base))
    # Writers do not meet it.
    foreign_adapter(base, tmp_path / "b", target_modules=["o_proj"], modules_to_save=norms)
    found = inspect_adapter(tmp_path / "b", tiny.load(base))
    assert found.unread == ("model.layers.1.input_layernorm.weight",)


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_a_factor_without_its_partner_is_damage(factor: str, base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    foreign_adapter(base, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    module = SELF_ATTENTION.format(1, "q_proj")
    del tensors[f"base_model.model.{module}.{factor}.weight"]
    save_file(tensors, path)
    with pytest.raises(AlignmentError, match=f"no pair of A and B of {module}"):
        read_lora(tmp_path)
