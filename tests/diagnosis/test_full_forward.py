"""The model run to its end, changed inside: transformers' way, the bridge's, and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model import (
    FullForward,
    LanguageModel,
    cut,
    token_strings,
    whole_text,
    with_answer,
    word_token,
)

FAMILIES = {
    "gpt2": models.tiny_gpt2,
    "llama": models.tiny_llama,
    "qwen2": models.tiny_qwen2,
    "gemma2": models.tiny_gemma2,
}
POINTS = [
    "blocks.1.hook_resid_pre",
    "blocks.1.hook_resid_post",
    "blocks.1.hook_attn_out",
    "blocks.1.hook_mlp_out",
    "blocks.1.attn.hook_z",
]
TEXT = "a small boat sailed over the cold sea"


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return LanguageModel.load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    """The same model as transformers runs it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def ids_of(model: LanguageModel, text: str = TEXT) -> Tensor:
    whole = whole_text(model, text, document="")
    assert whole is not None
    return torch.tensor([[model.bos_token_id, *whole.token_ids]])


def by_the_bridge(model: LanguageModel, point: str) -> FullForward:
    forward = FullForward(model, reads=point, writes=point)
    forward.uses_bridge = True
    return forward


def turned(values: Tensor, first: int) -> Tensor:
    """A change that depends on the values and their places, and that is as large as they are."""
    places = torch.arange(first, first + values.shape[1])[None, :, None]
    return values.roll(1, dims=-1) * torch.cos(places.float())


def test_logits_are_those_of_transformers(model: LanguageModel, reference: Any) -> None:
    ids = ids_of(model)
    with torch.no_grad():
        expected = reference(ids).logits[:, -1]
    found = FullForward(model).next_logits(ids)
    assert found.shape == (1, min(models.VOCABULARY, len(model.tokenizer)))
    assert torch.allclose(found, expected[:, : found.shape[1]], atol=1e-4)


def test_answers_are_those_of_transformers(model: LanguageModel, reference: Any) -> None:
    ids = ids_of(model)
    expected = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )[0, ids.shape[1] :].tolist()
    ends = expected.index(1) if 1 in expected else len(expected)
    answer = FullForward(model).answer(ids[0].tolist(), 12)
    assert list(answer.token_ids) == expected[:ends]
    assert answer.ended == (1 in expected)


@pytest.mark.parametrize("point", POINTS)
def test_both_ways_change_a_point_alike(model: LanguageModel, point: str) -> None:
    ids = ids_of(model).expand(2, -1)
    fast, slow = FullForward(model, reads=point, writes=point), by_the_bridge(model, point)
    assert not fast.uses_bridge
    plain = fast.next_logits(ids)
    found, expected = (way.next_logits(ids, turned) for way in (fast, slow))
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found - plain).abs().max() > 0.01
    # With the cache of keys and values, place by place, and without.
    one, two = (way.answer(ids[0].tolist(), 6, change=turned) for way in (fast, slow))
    assert one == two


def test_a_change_after_the_last_block_is_what_it_is_by_hand(
    model: LanguageModel, reference: Any
) -> None:
    point = f"blocks.{models.LAYERS - 1}.hook_resid_post"
    ids = ids_of(model)
    added = torch.linspace(-1, 1, models.D_MODEL)
    forward = FullForward(model, reads=point, writes=point)
    found = forward.next_logits(ids, lambda values, first: added.expand_as(values))
    kept: list[Tensor] = []
    base = reference.get_decoder() if hasattr(reference, "get_decoder") else reference.transformer
    norm = base.ln_f if hasattr(base, "ln_f") else base.norm
    handle = norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        reference(ids)
        handle.remove()
        logits = reference.lm_head(norm(kept[0] + added))[:, -1]
        cap = getattr(reference.config, "final_logit_softcapping", None)
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
    assert torch.allclose(found, logits[:, : found.shape[1]], atol=1e-4)


def test_what_is_read_below_is_written_above(model: LanguageModel) -> None:
    """As for a transcoder, which reads one point of a block and writes another."""
    reads, writes = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    ids = ids_of(model)
    fast = FullForward(model, reads=reads, writes=writes)
    slow = FullForward(model, reads=reads, writes=writes)
    slow.uses_bridge = True
    seen: list[Tensor] = []

    def change(values: Tensor, first: int) -> Tensor:
        seen.append(values)
        return values * 2

    assert torch.allclose(fast.next_logits(ids, change), slow.next_logits(ids, change), atol=1e-4)
    (batch,) = model.batches([whole_text(model, TEXT, document="")], prepend_bos=True)  # type: ignore[list-item]
    expected = model.activations(batch, [reads])[reads]
    assert all(torch.allclose(values, expected, atol=1e-5) for values in seen)


def test_no_change_changes_nothing(model: LanguageModel) -> None:
    point = "blocks.1.hook_resid_post"
    ids = ids_of(model)
    forward = FullForward(model, reads=point, writes=point)
    nothing = forward.next_logits(ids, lambda values, first: torch.zeros_like(values))
    assert torch.equal(nothing, forward.next_logits(ids))
    assert torch.equal(nothing, FullForward(model).next_logits(ids))


@pytest.mark.parametrize("point", ["blocks.1.hook_resid_mid", "blocks.1.ln1.hook_normalized"])
def test_where_a_change_would_be_half_a_change_it_is_refused(
    model: LanguageModel, point: str
) -> None:
    with pytest.raises(ModelError, match="cannot be changed"):
        FullForward(model, reads=point, writes=point)


def test_answers_end_with_the_context(model: LanguageModel) -> None:
    ids = ids_of(model)[0].tolist()
    answer = FullForward(model).answer(ids, 10_000, temperature=1.0, seed=3)
    if not answer.ended:
        assert len(ids) + len(answer.token_ids) == model.context_size
    assert FullForward(model).answer(ids, 0).token_ids == ()


def test_draws_follow_the_seed_and_the_temperature(model: LanguageModel) -> None:
    forward, ids = FullForward(model), ids_of(model)[0].tolist()
    drawn = [forward.answer(ids, 1, temperature=1.0, seed=seed) for seed in range(300)]
    assert drawn[:20] == [forward.answer(ids, 1, temperature=1.0, seed=s) for s in range(20)]
    probabilities = forward.next_logits(torch.tensor([ids]))[0].double().softmax(-1)
    likeliest = int(probabilities.argmax())
    share = sum(answer.token_ids[:1] == (likeliest,) for answer in drawn) / len(drawn)
    expected = float(probabilities[likeliest])
    if likeliest != 1:  # which ends a text
        assert abs(share - expected) < 4 * (expected * (1 - expected) / len(drawn)) ** 0.5 + 1e-9
    cold = forward.answer(ids, 5, temperature=1e-4, seed=1)
    assert cold == forward.answer(ids, 5)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = models.tiny_llama(tmp_path_factory.mktemp("llama") / "model")
    return LanguageModel.load(str(folder), device="cpu")


def test_token_ids_of_an_answer_are_kept(llama: LanguageModel) -> None:
    """A tokenizer would make other tokens of the same text."""
    text = whole_text(llama, "the", document="")
    assert text is not None
    letters = [llama.tokenizer.convert_tokens_to_ids(letter) for letter in "cat"]
    joined = with_answer(text, letters, llama)
    assert joined.token_ids == [*text.token_ids, *letters]
    assert "".join(joined.token_strings) == "thecat"
    again = llama.tokenizer("thecat", add_special_tokens=False)["input_ids"]
    assert again != joined.token_ids
    pieces = cut(joined, 2)
    assert [i for piece in pieces for i in piece.token_ids] == joined.token_ids
    assert [piece.start for piece in pieces] == list(range(0, len(joined.token_ids), 2))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_strings_of_tokens_are_the_text(text: str) -> None:
    tokenizer = models.byte_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    strings = token_strings(ids, tokenizer=tokenizer)
    assert len(strings) == len(ids)
    assert "".join(strings) == text
    half = len(ids) // 2
    parts = token_strings(ids[half:], before=ids[:half], tokenizer=tokenizer)
    if "\ufffd" not in tokenizer.decode(ids[:half]):
        assert "".join(parts) == text[len(tokenizer.decode(ids[:half])) :]


def test_a_character_of_several_tokens_stands_at_the_first() -> None:
    tokenizer = models.byte_tokenizer()
    text = "x犬y"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 5
    assert token_strings(ids, tokenizer=tokenizer) == ["x", "犬", "", "", "y"]


def test_a_word_begins_with_its_first_token() -> None:
    tokenizer = models.byte_tokenizer()
    first = word_token(" catastrophe", tokenizer)
    assert first is not None
    assert " catastrophe".startswith(tokenizer.decode([first]))
    assert tokenizer.decode([first]).strip()
    assert word_token("", tokenizer) is None
