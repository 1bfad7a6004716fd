"""Activations against transformers' own, read with forward hooks on its modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models import D_MODEL, LAYERS, batch_of
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model import LanguageModel, TokenBatch

TEXTS = [
    "the cat sat on the mat",
    "a small boat sailed over the cold sea to the north, and she wrote a letter",
    "dog",
]


def module_output(reference: Any, module: str, batch: TokenBatch) -> Tensor:
    """What a module of transformers' model answers, row by row and so without padding."""
    found: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = reference.get_submodule(module).register_forward_hook(keep)
    rows = []
    with torch.no_grad():
        for ids, mask in zip(batch.token_ids, batch.attention_mask, strict=True):
            reference(ids[mask][None])
            rows.append(found.pop()[0])
    handle.remove()
    return torch.cat(rows)


def modules(reference: Any, layer: int) -> list[str]:
    """Modules of one block whose output is as wide as the residual stream."""
    block = {
        "gpt2": f"transformer.h.{layer}",
        "gpt_neox": f"gpt_neox.layers.{layer}",
    }.get(reference.config.model_type, f"model.layers.{layer}")
    inside = {
        "gpt2": ["attn", "attn.c_proj", "mlp", "mlp.c_proj"],
        "gpt_neox": ["attention", "attention.dense", "mlp", "mlp.dense_4h_to_h"],
    }.get(reference.config.model_type, ["self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj"])
    return [block, *(f"{block}.{name}" for name in inside)]


@pytest.mark.parametrize("layer", [0, LAYERS - 1])
def test_hugging_face_names_give_that_modules_output(
    model: LanguageModel, reference: Any, layer: int
) -> None:
    batch = batch_of(model, TEXTS)
    names = modules(reference, layer)
    found = model.activations(batch, names)
    assert list(found) == names
    for name in names:
        expected = module_output(reference, name, batch)
        torch.testing.assert_close(
            found[name][batch.attention_mask], expected, atol=2e-5, rtol=2e-5
        )


def test_names_that_tables_show(model: LanguageModel, reference: Any) -> None:
    block, attention, o_proj, mlp, down_proj = modules(reference, 1)
    assert model.hook_point(block) == "blocks.1.hook_resid_post"
    if reference.config.model_type in ("gemma2", "gemma3_text"):
        # Its customary hooks come after a norm, which these modules' outputs do not.
        assert model.hook_point(mlp) == model.hook_point(down_proj) == "blocks.1.mlp.hook_out"
        assert model.hook_point(attention) == model.hook_point(o_proj) == "blocks.1.attn.hook_out"
    else:
        assert model.hook_point(mlp) == model.hook_point(down_proj) == "blocks.1.hook_mlp_out"
        assert model.hook_point(attention) == model.hook_point(o_proj) == "blocks.1.hook_attn_out"
    assert model.layer_of(down_proj) == 1


def test_the_stream_is_transformers_hidden_states(model: LanguageModel, reference: Any) -> None:
    batch = batch_of(model, TEXTS[:1])
    with torch.no_grad():
        hidden = reference(batch.token_ids, output_hidden_states=True).hidden_states
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(LAYERS)]
    for name, expected in zip(names, hidden, strict=False):
        found = model.activations(batch, [name])[name]
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
        assert found.dtype == torch.float32


def test_mlp_outputs_and_attention_outputs_add_up_to_the_stream(model: LanguageModel) -> None:
    """hook_attn_out and hook_mlp_out are what is added to the stream, norms included."""
    batch = batch_of(model, TEXTS)
    before, attention, mlp, after = (
        f"blocks.1.{site}"
        for site in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    )
    found = model.activations(batch, [after, before, attention, mlp])
    total = found[before] + found[attention] + found[mlp]
    mask = batch.attention_mask
    torch.testing.assert_close(total[mask], found[after][mask], atol=2e-5, rtol=2e-5)


def test_heads_are_flattened_in_the_order_of_the_output_projection(
    model: LanguageModel, reference: Any
) -> None:
    batch = batch_of(model, TEXTS)
    heads = model.activations(batch, ["blocks.1.attn.hook_z"])["blocks.1.attn.hook_z"]
    assert heads.shape == (*batch.token_ids.shape, 32)
    projection = modules(reference, 1)[2]
    with torch.no_grad():
        projected = reference.get_submodule(projection)(heads[batch.attention_mask])
    expected = module_output(reference, projection, batch)
    torch.testing.assert_close(projected, expected, atol=2e-5, rtol=2e-5)


def test_padding_changes_nothing(model: LanguageModel) -> None:
    name = "blocks.2.hook_resid_post"
    together = batch_of(model, TEXTS)
    assert not together.attention_mask.all()
    found = model.activations(together, [name])[name]
    for row, text in enumerate(together.texts):
        alone = next(model.batches([text], prepend_bos=True))
        expected = model.activations(alone, [name])[name][0]
        torch.testing.assert_close(found[row, : len(expected)], expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("site", ["hook_mlp_out", "ln2.hook_normalized"])
def test_blocks_above_the_last_hook_point_do_not_run(llama: LanguageModel, site: str) -> None:
    names = [f"blocks.1.{site}", "blocks.0.hook_resid_post"]
    batch = batch_of(llama, TEXTS)
    llama.activations(batch, names)
    ran: list[int] = []
    handles = [
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for model in (llama._bridge.original_model, llama._forward.fast._model)
        for number, block in enumerate(model.model.layers)
    ]
    llama.activations(batch, names)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


@pytest.mark.parametrize("site", ["hook_mlp_out", "ln2.hook_normalized"])
def test_a_batch_leaves_no_hooks_behind(llama: LanguageModel, site: str) -> None:
    batch = batch_of(llama, TEXTS)
    llama.activations(batch, [f"blocks.1.{site}", "blocks.0.hook_resid_pre"])
    hooks = llama._bridge.hook_dict.values()
    assert not any(hook.fwd_hooks for hook in hooks)
    modules = llama._forward.fast._model.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    logits = llama._bridge(batch.token_ids)
    assert logits.shape[-1] == llama._bridge.cfg.d_vocab


def test_activation_sizes(llama: LanguageModel) -> None:
    sizes = {
        "blocks.1.hook_resid_post": D_MODEL,
        "model.layers.1.mlp": D_MODEL,
        "blocks.1.mlp.hook_post": 48,
        "blocks.1.attn.hook_k": 16,
    }
    assert {name: llama.activation_size(name) for name in sizes} == sizes


def test_attention_patterns_are_not_activations(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match="not show one vector per token"):
        llama.activation_size("blocks.1.attn.hook_pattern")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.1.hook_mlp_outt", "did you mean 'blocks.1.hook_mlp_out'"),
        ("blocks.3.hook_resid_post", "above model 'model', whose last layer is 2"),
        ("model.layers.3.mlp", "above model 'model', whose last layer is 2"),
        ("model.layers.1.nothing", "no hook point 'model.layers.1.nothing'"),
        ("transformer.h.1.mlp", "no hook point 'transformer.h.1.mlp'"),
        ("hook_embed", "no hook point 'hook_embed' inside its blocks"),
        ("blocks.1.hook_mlp_in", "no hook point 'blocks.1.hook_mlp_in'"),
    ],
)
def test_absent_hook_points_are_named(llama: LanguageModel, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        llama.activations(batch_of(llama, TEXTS), [name])
    assert "\n" not in str(caught.value)


def test_thresholds_are_eight_medians_of_the_stream_after_the_block(llama: LanguageModel) -> None:
    batch = batch_of(llama, TEXTS)
    names = ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_pre", "model.layers.1"]
    thresholds = llama.sink_thresholds([batch], names)
    for name, point in zip(
        names, ["hook_resid_post", "hook_resid_pre", "hook_resid_post"], strict=True
    ):
        values = llama.activations(batch, [f"blocks.1.{point}"])[f"blocks.1.{point}"]
        norms = values.square().sum(-1).sqrt()[batch.content_mask].numpy()
        assert thresholds[name] == pytest.approx(8 * np.median(norms), rel=1e-6)


def test_sinks_are_left_out_where_their_stream_is_large(llama: LanguageModel) -> None:
    batch = batch_of(llama, TEXTS)
    names = ["blocks.1.hook_mlp_out", "blocks.0.hook_resid_pre"]
    stream = llama.activations(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    norms = stream.norm(dim=-1)
    cut = norms[batch.content_mask].sort().values[-3].item()
    found = llama.observe(batch, names, {names[0]: cut, names[1]: 1e9})
    assert (batch.content_mask & ~found[names[0]].content_mask).sum() == 2
    assert torch.equal(found[names[0]].content_mask, batch.content_mask & (norms <= cut))
    assert torch.equal(found[names[1]].content_mask, batch.content_mask)
    activations, content = found[names[0]]
    plain = llama.activations(batch, names)
    torch.testing.assert_close(activations, plain[names[0]])
    assert content.dtype == torch.bool


def test_thresholds_need_a_content_token(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match="no content token"):
        llama.sink_thresholds([], ["blocks.1.hook_resid_post"])


def test_thresholds_rest_on_the_first_20_000_tokens(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safesail.language_model._sinks._SINK_TOKENS", 4)
    batch = batch_of(llama, TEXTS)
    name = "blocks.1.hook_resid_post"
    norms = llama.activations(batch, [name])[name].norm(dim=-1)[batch.content_mask]

    def batches() -> Any:
        yield batch
        pytest.fail("read on after there were tokens enough")

    expected = 8 * norms[:4].double().numpy()
    assert llama.sink_thresholds(batches(), [name])[name] == pytest.approx(np.median(expected))


def test_calibrating_while_observing_is_calibrating_and_then_observing(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safesail.language_model._sinks._SINK_TOKENS", 15)
    first, second, third = (batch_of(llama, [text] * 2) for text in TEXTS[:3])
    names = ["blocks.1.hook_mlp_out", "blocks.0.hook_resid_pre"]
    assert int(first.content_mask.sum()) < 15 <= int(first.content_mask.sum() * 2)
    rest = iter([first, second, third])
    thresholds, taken = llama.observe_and_calibrate(rest, names)
    assert thresholds == llama.sink_thresholds([first, second, third], names)
    assert [batch for batch, _ in taken] == [first, second]
    assert list(rest) == [third]
    for batch, found in taken:
        for name, (activations, content) in llama.observe(batch, names, thresholds).items():
            assert torch.equal(found[name].activations, activations)
            assert torch.equal(found[name].content_mask, content)


def test_logit_directions_are_what_the_model_would_say(
    model: LanguageModel, reference: Any
) -> None:
    """Added to a stream at large scale, a direction decides the model's own logits' order."""
    directions = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(1))
    base = reference.get_decoder() if hasattr(reference, "get_decoder") else reference.base_model
    norm = next(
        getattr(base, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(base, name)
    )
    head = reference.get_output_embeddings()
    with torch.no_grad():
        bias = norm(torch.zeros(1, D_MODEL)) if hasattr(norm, "bias") else torch.zeros(1, D_MODEL)
        logits = head(norm(directions * 1e4)) - head(bias)
    # The model has more rows than the tokenizer has tokens, as padded vocabularies do.
    assert len(model.tokenizer) < logits.shape[1]
    logits = logits[:, : len(model.tokenizer)]
    found = model.logit_directions(directions, 5)
    for row, (top, bottom) in zip(logits, found, strict=True):
        order = row.argsort(descending=True)
        assert top == [model.tokenizer.decode([i]) for i in order[:5].tolist()]
        assert bottom == [model.tokenizer.decode([i]) for i in order.flip(0)[:5].tolist()]


def test_directions_must_be_as_wide_as_the_stream(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match="do not write to the residual stream"):
        llama.logit_directions(torch.ones(1, D_MODEL + 1), 3)
