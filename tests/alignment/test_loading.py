"""Loading adapters: whole, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import pytest
import tiny_alignment as tiny
import torch
from foreign_adapter import foreign_adapter
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from safesail.alignment import load_adapter, make_adapter, save_adapter
from safesail.alignment._provenance import PROVENANCE_FILE
from safesail.alignment._saving import load_foreign_adapter
from safesail.errors import AlignmentError

WEIGHTS = "adapter_model.safetensors"
QUERY = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def own(base: Path, tmp_path: Path) -> Path:
    """An adapter of safesail that changes something."""
    adapted = make_adapter(tiny.load(base), tiny.subspace(1, 2), rank=4)
    tiny.step(adapted)
    save_adapter(adapted, tmp_path / "own")
    return tmp_path / "own"


def without(folder: Path, *modules: str) -> None:
    """Take modules' factors out of an adapter's weights."""
    tensors = load_file(folder / WEIGHTS)
    kept = {n: t for n, t in tensors.items() if not any(f".{one}.lora" in n for one in modules)}
    assert len(tensors) - len(kept) == 2 * len(modules)
    save_file(kept, folder / WEIGHTS)


def change_json(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}), encoding="utf-8")


def refused(message: str, load: Any, model: Any, folder: Path) -> None:
    with pytest.raises(AlignmentError, match=message) as caught:
        load(model, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["o_proj", "embed_tokens"]},
        {"target_modules": ["o_proj"], "trainable_token_indices": [3]},
        {"target_modules": ["v_proj"], "rank_pattern": {"1.self_attn.v_proj": 2}},
        {"target_modules": ["v_proj"], "use_dora": True},
    ],
)
def test_what_peft_made_is_loaded_as_it_was(
    settings: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    adapted = foreign_adapter(base, tmp_path, **settings)
    loaded = load_foreign_adapter(tiny.load(base), tmp_path)
    expected = tiny.logits(adapted.eval())
    assert torch.equal(tiny.logits(loaded), expected)
    assert (expected - tiny.logits(tiny.load(base))).abs().max() > 1e-3
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_embeddings_saved_beside_the_factors_are_loaded(base: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(tiny.load(base), LoraConfig(target_modules=["q_proj"]))
    with torch.no_grad():
        adapted.get_input_embeddings().weight.add_(1)
    adapted.save_pretrained(str(tmp_path), save_embedding_layers=True)
    loaded = load_foreign_adapter(tiny.load(base), tmp_path)
    assert torch.equal(tiny.logits(loaded), tiny.logits(adapted.eval()))


def test_an_adapter_of_another_kind_is_loaded_too(base: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny.load(base), config)
    adapted.save_pretrained(str(tmp_path))
    loaded = load_foreign_adapter(tiny.load(base), tmp_path)
    assert torch.equal(tiny.logits(loaded), tiny.logits(adapted.eval()))


def test_a_begin_that_loading_repeats_is_loaded_and_another_is_not(
    base: Path, tmp_path: Path
) -> None:
    config = LoraConfig(r=3, target_modules=["q_proj", "o_proj"], init_lora_weights="pissa")
    adapted = get_peft_model(tiny.load(base), config)
    tiny.step(adapted)
    adapted.save_pretrained(str(tmp_path))
    loaded = load_foreign_adapter(tiny.load(base), tmp_path)
    torch.testing.assert_close(tiny.logits(loaded), tiny.logits(adapted.eval()))
    for begin in ("lora_ga", "pissa_niter_4"):
        change_json(tmp_path / "adapter_config.json", init_lora_weights=begin)
        message = f"began with '{begin}'.* loading does not repeat.*path_initial_model"
        refused(message, load_foreign_adapter, tiny.load(base), tmp_path)


def test_weights_that_the_model_has_no_module_for_are_refused(
    base: Path, own: Path, tmp_path: Path
) -> None:
    """PEFT says nothing of them."""
    shallow = models.tiny_llama(tmp_path / "shallow", num_hidden_layers=2)
    foreign_adapter(base, tmp_path / "foreign", target_modules=["q_proj", "v_proj"])
    PeftModel.from_pretrained(tiny.load(shallow), str(tmp_path / "foreign"))
    message = r"changes model\.layers\.2\.self_attn\.q_proj and 1 more, which this model has not"
    refused(message, load_foreign_adapter, tiny.load(shallow), tmp_path / "foreign")
    refused("foreign is no adapter made by", load_adapter, tiny.load(base), tmp_path / "foreign")
    # In another precision the base's checksum says nothing.
    half = tiny.load(shallow).bfloat16()
    refused(r"changes model\.layers\.2\.", load_adapter, half, own)


def test_a_model_of_another_width_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    foreign_adapter(base, tmp_path / "foreign", target_modules=["k_proj"])
    wide = models.tiny_llama(tmp_path / "wide", num_key_value_heads=4)
    message = r"cannot load adapter .* size mismatch for .*k_proj\.lora_B"
    refused(message, load_foreign_adapter, tiny.load(wide), tmp_path / "foreign")


def test_factors_that_are_absent_are_refused(base: Path, own: Path, tmp_path: Path) -> None:
    """PEFT would leave the module at its random begin."""
    foreign_adapter(base, tmp_path / "foreign")
    without(tmp_path / "foreign", QUERY)
    message = f"is damaged: it has no weights of {QUERY}, which its configuration names"
    refused(message, load_foreign_adapter, tiny.load(base), tmp_path / "foreign")
    without(own, QUERY, "model.layers.1.self_attn.o_proj")
    message = r"no weights of model\.layers\.1\.self_attn\.o_proj and 1 more, which"
    refused(message, load_adapter, tiny.load(base), own)


def test_a_whole_module_that_is_absent_is_refused(base: Path, tmp_path: Path) -> None:
    foreign_adapter(base, tmp_path, target_modules=["q_proj"], modules_to_save=["lm_head"])
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, tmp_path / WEIGHTS)
    message = r"cannot load adapter .*lm_head\.weight' is missing"
    refused(message, load_foreign_adapter, tiny.load(base), tmp_path)


def test_a_module_of_the_provenance_that_is_absent_is_refused(base: Path, own: Path) -> None:
    """Also where configuration and weights agree on the rest."""
    without(own, QUERY)
    path = own / "adapter_config.json"
    targets = json.loads(path.read_text())["target_modules"]
    change_json(path, target_modules=[one for one in targets if one != QUERY])
    message = f"of {QUERY} its provenance and its weights say different things"
    refused(message, load_adapter, tiny.load(base), own)


def test_folders_without_weights_ask_nobody_for_them(base: Path, own: Path, tmp_path: Path) -> None:
    """PEFT would take the path for a name on the hub, or unpickle other weights."""
    (own / WEIGHTS).rename(own / "adapter_model.bin")
    for load in (load_adapter, load_foreign_adapter):
        refused(f"is no adapter of PEFT: it lacks .* {WEIGHTS}", load, tiny.load(base), own)
    assert (own / PROVENANCE_FILE).exists()
    refused("is no adapter of PEFT", load_foreign_adapter, tiny.load(base), tmp_path / "none")
