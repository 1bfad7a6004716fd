"""Answers of tiny models: what batching, padding, templates and adapters must not change."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import tiny_alignment
import torch

from safesail.alignment import ModelAnswers, make_plain_adapter
from safesail.alignment._memory import is_out_of_memory
from safesail.errors import AlignmentError

PROMPTS = ["the cat", "a small boat sailed over the cold sea", "she", "numbers 1234 and"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny model and its tokenizer."""
    from transformers import AutoTokenizer

    folder = tiny_alignment.MAKERS[request.param](tmp_path_factory.mktemp("model") / "tiny")
    return tiny_alignment.load(folder), AutoTokenizer.from_pretrained(folder)


def greedy(model: Any, ids: list[int], steps: int, ends: set[int]) -> list[int]:
    """Token by token without cache or padding."""
    new: list[int] = []
    with torch.no_grad():
        while len(new) < steps:
            best = int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if best in ends:
                break
            new.append(best)
    return new


def test_batched_answers_are_those_of_one_prompt_token_by_token(loaded: Any) -> None:
    model, tokenizer = loaded
    replies = ModelAnswers(model, tokenizer, batch_size=3, max_new_tokens=8).answer(PROMPTS)
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        if tokenizer.bos_token_id is not None and ids[0] != tokenizer.bos_token_id:
            ids = [tokenizer.bos_token_id, *ids]
        ends = {model.generation_config.eos_token_id, tokenizer.eos_token_id}
        expected = greedy(model, ids, 8, ends)
        assert reply.text == tokenizer.decode(expected, skip_special_tokens=True).strip()
        assert (reply.tokens, reply.cut) == (len(expected), len(expected) == 8)


def test_prompts_go_through_the_chat_template(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    seen = []
    generate = model.generate

    def watched(**options: Any) -> Any:
        seen.append(options["input_ids"][0].tolist())
        return generate(**options)

    monkeypatch.setattr(model, "generate", watched)
    ModelAnswers(model, tokenizer, max_new_tokens=2).answer(["the cat"])
    assert tokenizer.decode(seen[0]).endswith("<user>the cat<answer>")
    assert seen[0].count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)


def test_samples_repeat_with_the_seed_and_leave_other_draws_alone(loaded: Any) -> None:
    model, tokenizer = loaded

    def sampled(seed: int) -> list[str]:
        answers = ModelAnswers(model, tokenizer, max_new_tokens=8, temperature=1.5, seed=seed)
        return [reply.text for reply in answers.answer(PROMPTS)]

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert sampled(0) == sampled(0) != sampled(1)
    assert torch.equal(torch.rand(3), expected)


OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "all at once": {
        "repetition_penalty": 5.0,
        "num_beams": 2,
        "min_new_tokens": 5,
        "do_sample": True,
        "temperature": 1.5,
    },
    "of sampling": {"do_sample": True, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5},
    "of beams": {"num_beams": 3, "length_penalty": 3.0, "early_stopping": True},
    "tokens": {"forced_bos_token_id": 9, "forced_eos_token_id": 8, "begin_suppress_tokens": [7]},
    "suppressed": {"suppress_tokens": [*range(3, 90)], "bad_words_ids": [[95], [96]]},
    "lengths": {"max_length": 9, "min_length": 60, "no_repeat_ngram_size": 1},
    "outputs": {"return_dict_in_generate": True, "output_scores": True, "use_cache": False},
    "stops": {"stop_strings": ["e"], "max_time": 1e-6, "guidance_scale": 4.0},
    "lookup": {"prompt_lookup_num_tokens": 2},
}


@pytest.mark.parametrize("own", OWN_SETTINGS.values(), ids=OWN_SETTINGS)
@pytest.mark.parametrize("adapted", [False, True])
def test_settings_of_the_model_change_no_answer(
    loaded: Any, monkeypatch: Any, caplog: Any, recwarn: Any, own: dict[str, Any], adapted: bool
) -> None:
    model, tokenizer = loaded
    asked = make_plain_adapter(model, rank=2) if adapted else model
    answers = ModelAnswers(asked, tokenizer, batch_size=2, max_new_tokens=12)
    try:
        before = answers.answer(PROMPTS)
        changed = copy.deepcopy(model.generation_config)
        for name, value in own.items():
            setattr(changed, name, value)
        monkeypatch.setattr(model, "generation_config", changed)
        kept = changed.to_dict()
        said = logging.getLogger("transformers")
        said.addHandler(caplog.handler)
        recwarn.clear()
        try:
            assert answers.answer(PROMPTS) == before
        finally:
            said.removeHandler(caplog.handler)
        assert not caplog.records
        assert not recwarn.list
        assert model.generation_config is changed
        assert changed.to_dict() == kept
    finally:
        if adapted:
            asked.unload()


def test_settings_of_the_model_change_no_sample(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    answers = ModelAnswers(model, tokenizer, max_new_tokens=12, temperature=0.7)
    before = answers.answer(PROMPTS)
    changed = copy.deepcopy(model.generation_config)
    changed.top_k, changed.min_p, changed.repetition_penalty = 1, 0.9, 5.0
    monkeypatch.setattr(model, "generation_config", changed)
    assert answers.answer(PROMPTS) == before


def test_a_model_keeps_its_settings_where_it_fails(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    own = model.generation_config

    def fail(**options: Any) -> Any:
        raise KeyError("no such thing")

    monkeypatch.setattr(model, "generate", fail)
    with pytest.raises(KeyError):
        ModelAnswers(model, tokenizer, max_new_tokens=2).answer(["the cat"])
    assert model.generation_config is own


def test_a_template_that_refuses_a_prompt_is_one_line(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    refusing = "{{ raise_exception('no user may speak') }}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    with pytest.raises(AlignmentError, match="template refuses 'the cat': no user may speak"):
        ModelAnswers(model, tokenizer, max_new_tokens=2).answer(["the cat"])


def test_an_adapter_answers_as_itself(loaded: Any) -> None:
    model, tokenizer = loaded
    before = ModelAnswers(model, tokenizer, max_new_tokens=6).answer(PROMPTS)
    adapted = make_plain_adapter(model, rank=2)
    try:
        answers = ModelAnswers(adapted, tokenizer, max_new_tokens=6)
        assert answers.answer(PROMPTS) == before
        with torch.no_grad():
            for name, one in adapted.named_parameters():
                if "lora_B" in name:
                    one.normal_(0, 5)
        assert answers.answer(PROMPTS) != before
    finally:
        adapted.unload()


def test_likelihood_is_transformers_loss(loaded: Any) -> None:
    model, tokenizer = loaded
    texts = [*PROMPTS, ""]
    found = ModelAnswers(model, tokenizer, batch_size=2).likelihood(texts)
    for text, one in zip(PROMPTS, found, strict=False):
        ids = tokenizer(text)["input_ids"]
        if tokenizer.bos_token_id is not None and ids[0] != tokenizer.bos_token_id:
            ids = [tokenizer.bos_token_id, *ids]
        tokens = torch.tensor([ids])
        with torch.no_grad():
            loss = float(model(input_ids=tokens, labels=tokens).loss)
        assert one.tokens == len(ids) - 1
        assert one.nats == pytest.approx(loss * one.tokens, rel=1e-4)
    assert (found[-1].nats, found[-1].tokens) == (0.0, 0)


def test_texts_are_scored_few_tokens_at_once(loaded: Any, monkeypatch: Any) -> None:
    """The same likelihoods, in batches whose logits fit; a longer text goes alone."""
    model, tokenizer = loaded
    texts = ["the cat sat", "she", "the cat sat on the mat " * 6, "", "a sea", "a boat", "numbers"]
    answers = ModelAnswers(model, tokenizer, batch_size=3)
    together = answers.likelihood(texts)
    shapes: list[tuple[int, int]] = []
    watching = model.register_forward_pre_hook(
        lambda module, given, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    most = 2 * together[0].tokens + 2
    monkeypatch.setattr("safesail.alignment._generation._MOST_SCORED", most)
    try:
        found = answers.likelihood(texts)
    finally:
        watching.remove()
    assert [one.tokens for one in found] == [one.tokens for one in together]
    expected = [one.nats for one in together]
    assert [one.nats for one in found] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert shapes[0][0] == 1
    assert shapes[0][1] > most
    assert all(rows * width <= most for rows, width in shapes[1:])
    assert max(rows for rows, _ in shapes) > 1
    assert sum(rows for rows, _ in shapes) >= len(texts) - 1


def test_each_module_keeps_its_mode(loaded: Any) -> None:
    model, tokenizer = loaded
    model.training = True
    try:
        before = [module.training for module in model.modules()]
        assert len(set(before)) == 2
        ModelAnswers(model, tokenizer, max_new_tokens=1).answer(["the cat"])
        assert [module.training for module in model.modules()] == before
    finally:
        model.eval()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_is_one_line(loaded: Any, monkeypatch: Any, error: Exception) -> None:
    model, tokenizer = loaded

    def fail(**options: Any) -> Any:
        raise error

    monkeypatch.setattr(model, "generate", fail)
    answers = ModelAnswers(model, tokenizer, batch_size=7, max_new_tokens=2)
    with pytest.raises(AlignmentError, match="7 prompts at once on cpu: lower") as found:
        answers.answer(["the cat"])
    assert "\n" not in str(found.value)


def test_texts_out_of_memory_are_one_line(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    monkeypatch.setattr(model, "forward", lambda **options: torch.empty(2**55))
    with pytest.raises(AlignmentError, match=r"out of memory with 1 x \d+ tokens of texts at once"):
        ModelAnswers(model, tokenizer).likelihood(["the cat"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: an illegal memory access; allocate with care"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_prompt_without_room_is_named(loaded: Any) -> None:
    model, tokenizer = loaded
    answers = ModelAnswers(model, tokenizer, max_new_tokens=32)
    with pytest.raises(AlignmentError, match=r"prompt 2 .* no room for an answer"):
        answers.answer(["the cat", "the cat sat on the mat " * 40])


def test_an_answer_ends_with_the_context_and_says_so(loaded: Any, monkeypatch: Any) -> None:
    model, tokenizer = loaded
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = None
    (reply,) = ModelAnswers(model, tokenizer, max_new_tokens=500).answer(["the cat"])
    ids = tokenizer("the cat")["input_ids"]
    added = tokenizer.bos_token_id is not None and ids[0] != tokenizer.bos_token_id
    assert reply.cut
    assert reply.tokens == model.config.max_position_embeddings - len(ids) - added


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(AlignmentError, match="batch size"):
        ModelAnswers(None, None, batch_size=0)
