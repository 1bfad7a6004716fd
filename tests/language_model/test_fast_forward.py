"""The plain model of transformers against TransformerLens' bridge, without padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from models import batch_of
from torch import Tensor

from safesail.language_model import LanguageModel, TokenBatch
from safesail.language_model._fast_forward import Capture
from safesail.language_model._hook_points import HookPoints, Site

WINDOW = 8
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
# Family, settings, and the attention that transformers can compute for it.
FAMILIES: dict[str, tuple[Callable[..., Path], dict[str, Any], str]] = {
    "gpt2": (models.tiny_gpt2, {}, "sdpa"),
    "llama": (models.tiny_llama, {}, "sdpa"),
    "qwen2": (
        models.tiny_qwen2,
        {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": SLIDING},
        "sdpa",
    ),
    "qwen3": (models.tiny_qwen3, {}, "sdpa"),
    "gemma2": (
        models.tiny_gemma2,
        # Caps low enough to matter.
        {"sliding_window": WINDOW, "layer_types": SLIDING, "attn_logit_softcapping": 0.5},
        "eager",
    ),
    "gemma3": (models.tiny_gemma3, {"sliding_window": WINDOW, "layer_types": SLIDING}, "sdpa"),
    "gptj": (models.tiny_gptj, {}, "eager"),
}
SITES = ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out"]
TEXTS = [
    "the cat sat",
    "a small boat sailed over the cold sea to the north, she wrote letters",
    "dog",
]
# The bridge computes it inside a norm, and no module of transformers shows it.
BRIDGE_ONLY = "blocks.1.ln2.hook_normalized"


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, LanguageModel]:
    make, settings, _ = FAMILIES[request.param]
    folder = make(tmp_path_factory.mktemp("family") / "model", **settings)
    return request.param, LanguageModel.load(str(folder), device="cpu")


def from_the_bridge(model: LanguageModel, batch: TokenBatch, names: list[str]) -> dict[str, Tensor]:
    """TransformerLens' own cache, text by text, put where the batch has the text."""
    rows = []
    for ids, mask in zip(batch.token_ids, batch.attention_mask, strict=True):
        with torch.no_grad():
            _, cache = model._bridge.run_with_cache(ids[mask][None])
        rows.append(cache)
    return {name: torch.cat([cache[name][0] for cache in rows]) for name in names}


def model_pair(model: LanguageModel) -> tuple[Any, Any]:
    """The plain model of transformers, and the one that the bridge wraps."""
    return model._forward.fast._model, model._bridge.original_model


def largest_difference(
    found: dict[str, Tensor], expected: dict[str, Tensor], batch: TokenBatch
) -> float:
    assert found.keys() == expected.keys()
    return max(
        (values[batch.attention_mask] - expected[name]).abs().max().item()
        for name, values in found.items()
    )


def test_the_fast_way_shows_what_the_bridge_shows(family: tuple[str, LanguageModel]) -> None:
    name, model = family
    batch = batch_of(model, TEXTS)
    lengths = batch.attention_mask.sum(1)
    assert lengths.unique().numel() == len(TEXTS)
    assert lengths.max() > 2 * WINDOW
    # GPT-J adds attention and MLP to the same stream: there is no middle.
    sites = [site for site in SITES if name != "gptj" or site != "hook_resid_mid"]
    names = [f"blocks.{layer}.{site}" for layer in range(models.LAYERS) for site in sites]
    found = model.activations(batch, names)
    assert largest_difference(found, from_the_bridge(model, batch, names), batch) <= 1e-5
    assert set(model._forward.fast_sites(names)) == set(names)
    assert model._forward.fast.attention == FAMILIES[name][2]
    for one in names[-3:]:
        alone = model.activations(batch, [one])
        assert torch.equal(alone[one], found[one])


def test_the_fast_way_alone_serves_proven_points(
    family: tuple[str, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = family
    batch = batch_of(model, TEXTS)
    name = "blocks.1.hook_resid_post"
    expected = model.activations(batch, [name])[name]
    monkeypatch.setattr(model._forward, "_run_bridge", lambda *_: pytest.fail("the bridge ran"))
    assert torch.equal(model.activations(batch, [name])[name], expected)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3"], indirect=True)
def test_a_token_outside_the_window_is_not_seen(family: tuple[str, LanguageModel]) -> None:
    _, model = family
    batch = batch_of(model, TEXTS[1:2])
    other = batch.token_ids.clone()
    other[0, 0] = 77
    name = "blocks.0.hook_resid_post"
    one, two = (
        model._forward.run(ids, batch.attention_mask, [name])[name][0]
        for ids in (batch.token_ids, other)
    )
    changed = (one - two).abs().amax(-1) > 0
    assert changed[:WINDOW].all()
    assert not changed[WINDOW:].any()


def test_a_point_that_no_module_shows_comes_from_the_bridge(llama: LanguageModel) -> None:
    batch = batch_of(llama, TEXTS)
    names = [BRIDGE_ONLY, "blocks.2.hook_resid_post"]
    assert llama.activation_size(BRIDGE_ONLY) == models.D_MODEL
    assert set(llama._forward.fast_sites(names)) == {"blocks.2.hook_resid_post"}
    for asked in ([BRIDGE_ONLY], names):
        found = llama.activations(batch, asked)
        assert largest_difference(found, from_the_bridge(llama, batch, asked), batch) <= 1e-5


@pytest.mark.parametrize(
    "wrong",
    [
        Site("model.layers.1.mlp", "out"),
        Site("model.layers.2.input_layernorm", "out"),
        Site("model.layers.0", "out"),
        Site("model.layers.1.mlp.gate_proj", "out"),
        Site("model.layers.1.absent", "out"),
        # Shows no tensor of its own as the first argument.
        Site("model.layers.1.self_attn", "in"),
    ],
)
def test_a_wrong_place_is_found_out(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: Site
) -> None:
    monkeypatch.setattr(HookPoints, "site", lambda *_: wrong)
    model = LanguageModel.load(str(llama_folder), device="cpu")
    batch = batch_of(model, TEXTS)
    names = ["blocks.1.hook_resid_post"]
    found = model.activations(batch, names)
    assert model._forward.fast_sites(names) == {}
    assert largest_difference(found, from_the_bridge(model, batch, names), batch) <= 1e-5


def test_a_small_difference_is_found_out(llama_folder: Path) -> None:
    model = LanguageModel.load(str(llama_folder), device="cpu")
    norm = model._forward.fast._model.model.layers[0].input_layernorm
    norm.variance_epsilon *= 20
    assert model._forward.fast_sites(["blocks.0.hook_resid_pre"])
    assert not model._forward.fast_sites(["blocks.0.hook_resid_post"])


def test_tokens_that_see_what_follows_are_left_to_the_bridge(tmp_path: Path) -> None:
    """Such a model needs the mask that the fast way leaves out."""
    folder = models.tiny_gemma3(tmp_path / "model", use_bidirectional_attention=True)
    model = LanguageModel.load(str(folder), device="cpu")
    batch = batch_of(model, TEXTS)
    names = ["blocks.1.hook_resid_post"]
    found = model.activations(batch, names)
    assert not model._forward.fast_sites(names)
    assert largest_difference(found, from_the_bridge(model, batch, names), batch) <= 1e-5


def test_what_transformers_cannot_run_the_bridge_runs(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel.load(str(llama_folder), device="cpu")

    def refuse(*_: Any) -> Any:
        raise ValueError("this attention is not supported")

    monkeypatch.setattr(model._forward.fast, "run", refuse)
    batch = batch_of(model, TEXTS)
    names = ["blocks.1.hook_resid_post"]
    found = model.activations(batch, names)
    assert largest_difference(found, from_the_bridge(model, batch, names), batch) <= 1e-5


@pytest.mark.parametrize("function", ["gelu_new", "gelu_fast"])
def test_gelu_in_one_step_is_gelu(tmp_path: Path, function: str) -> None:
    folder = models.tiny_gpt2(tmp_path / "model", activation_function=function)
    model = LanguageModel.load(str(folder), device="cpu")
    batch = batch_of(model, TEXTS)
    names = ["blocks.0.mlp.hook_post"]
    found = model.activations(batch, names)
    assert set(model._forward.fast_sites(names)) == set(names)
    assert largest_difference(found, from_the_bridge(model, batch, names), batch) <= 1e-6
    kinds = [type(m.transformer.h[0].mlp.act) for m in model_pair(model)]
    assert kinds[0] is torch.nn.GELU
    assert kinds[1] is not torch.nn.GELU


def test_values_are_kept_as_they_were_when_seen() -> None:
    """Some models add to the output of a module in place, further up."""
    capture = Capture(["first", "second"], lambda _: KeyboardInterrupt())
    value = torch.zeros(1, 2, 3)
    capture.keep("first", value)
    value += 1
    with pytest.raises(KeyboardInterrupt):
        capture.keep("second", value)
    assert capture.found["first"].eq(0).all()
    assert capture.found["second"].eq(1).all()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", [models.tiny_llama, models.tiny_gpt2, models.tiny_gemma3])
def test_both_ways_use_the_same_memory(
    tmp_path: Path, make: Callable[..., Path], tied: bool
) -> None:
    model = LanguageModel.load(
        str(make(tmp_path / "model", tie_word_embeddings=tied)), device="cpu"
    )
    plain, twin = model_pair(model)
    embeddings = [m.get_input_embeddings().weight.data_ptr() for m in (plain, twin)]
    heads = [m.get_output_embeddings().weight.data_ptr() for m in (plain, twin)]
    assert len({*embeddings, *heads}) == (1 if tied else 2)
    for tensors in ("parameters", "buffers"):
        of_plain, of_twin = (
            {tensor.data_ptr() for tensor in getattr(m, tensors)()} for m in (plain, twin)
        )
        # The bridge adds some of its own, such as a zero bias.
        assert of_plain <= of_twin
    homes = {type(module).__module__.partition(".")[0] for module in plain.modules()}
    assert homes <= {"torch", "transformers"}
