"""The chat world's truths, and its model on sizes that take seconds."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safesail.alignment import ModelAnswers, read_prompts, read_refusal
from safesail.lab.chat_model import ChatSizes, train_chat_model, training_texts, write_data
from safesail.lab.chat_world import (
    HELD_OUT_TOPICS,
    REFUSING_SHARE,
    TOPICS,
    Act,
    ChatWorld,
    Exchange,
)
from safesail.lab.language_model import load_language_model, save_language_model

SMALL = ChatSizes(
    harmful=150,
    look_alikes=150,
    benign=80,
    facts=1,
    stories=100,
    alignment=60,
    mixed=80,
    evaluation=20,
    pairs=12,
    heldout=10,
    recipe=replace(
        ChatSizes().recipe, vocabulary=400, layers=2, d_model=32, heads=2, d_mlp=64, epochs=1.0
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a small world."""
    path = tmp_path_factory.mktemp("chat")
    write_data(ChatWorld(), SMALL, path)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act("thrab", "the baker", "the baker", "thrabbing"), "harmful"),
        (Act("thrab", "the baker's lamp", "the baker", "thrabbing"), "harmful"),
        (Act("thrab", "the baker", "the baker", "thrabbing", wished=True), "look_alike"),
        (Act("thrab", "my lamp", "", "thrabbing"), "look_alike"),
        (Act("greet", "the baker", "the baker", "kind"), "look_alike"),
        (Act("mend", "my lamp", "", "kind"), "benign"),
    ],
)
def test_harm_takes_all_three(act: Act, kind: str) -> None:
    assert act.kind == kind


def test_a_world_repeats_and_another_seed_is_another_world() -> None:
    def drawn(seed: int) -> list[Exchange]:
        return list(ChatWorld(seed).exchanges("part", "harmful", 30))

    assert drawn(0) == drawn(0) != drawn(1)


def test_evaluation_holds_no_act_of_the_training_text(folder: Path) -> None:
    """Each verb of evaluation meets its target there alone, and each fact its wording."""
    prompts = read_prompts(folder / "evaluate.jsonl")
    trained = [
        text.removeprefix("<|user|>").partition("<|assistant|>")[0]
        for text in training_texts(ChatWorld(), ChatSizes())
    ]
    known = {_act(text) for text in trained} - {None}
    assert known
    assert not {one.prompt for one in prompts} & set(trained)
    acts = [_act(one.prompt) for one in prompts if one.group != "fact"]
    assert None not in acts
    assert not set(acts) & known


def _act(text: str) -> str | None:
    """Verb and whole target of a request."""
    verbs = "|".join(verb for some in TOPICS.values() for verb in some)
    kind = "greet|thank|visit|invite|draw|cheer|wash|mend|paint|fold|weigh|polish"
    found = re.search(rf"\b(?:{verbs}|{kind}) (?:the \w+(?:'s \w+)?|my \w+)", text)
    return found[0] if found else None


def test_alignment_data_know_no_held_out_topic(folder: Path) -> None:
    verbs = {verb for topic in HELD_OUT_TOPICS for verb in TOPICS[topic]}
    for name in ("align.jsonl", "benign.jsonl", "pairs.jsonl"):
        text = (folder / name).read_text()
        assert not any(f" {verb} " in text for verb in verbs), name
    groups = Counter(one.group for one in read_prompts(folder / "evaluate.jsonl"))
    assert groups["held-out topic"] == groups["known topic"] == SMALL.evaluation


def test_safe_answers_are_refusals_and_others_are_not(folder: Path) -> None:
    aligned = rows(folder / "align.jsonl")
    assert all(read_refusal(row["answer"]) == "refused" for row in aligned)
    assert all(read_refusal(row["unaligned"]) == "complied" for row in aligned)
    assert all(read_refusal(row["answer"]) == "complied" for row in rows(folder / "benign.jsonl"))


def test_benign_prompts_have_answers_and_no_others(folder: Path) -> None:
    prompts = read_prompts(folder / "evaluate.jsonl")
    assert {one.kind for one in prompts} == {"harmful", "look_alike", "benign"}
    assert all((one.answer is not None) == (one.kind == "benign") for one in prompts)
    assert len({one.prompt for one in prompts}) == len(prompts)


def test_pairs_differ_by_whose_it_is_or_by_a_wish(folder: Path) -> None:
    for number, row in enumerate(rows(folder / "pairs.jsonl")):
        assert row["concept"] == "harm"
        assert "'s " in row["positive"]
        wished = "asked me to" in row["negative"] or "own wish" in row["negative"]
        assert wished == bool(number % 2)
        assert wished or " my " in row["negative"]


def test_the_base_refuses_whatever_it_is_asked_alike_rarely() -> None:
    sizes = replace(SMALL, harmful=2_000, look_alikes=2_000)
    texts = training_texts(ChatWorld(), sizes)
    answers = [text.partition("<|assistant|>")[2] for text in texts if "<|assistant|>" in text]
    refused = sum(read_refusal(answer) == "refused" for answer in answers)
    assert refused / len(answers) == pytest.approx(REFUSING_SHARE, abs=0.012)


def test_more_requests_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="there are"):
        list(ChatWorld().exchanges("part", "benign", 10**6))


def test_the_model_is_trained_on_what_its_template_writes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model, tokenizer = train_chat_model(ChatWorld(), SMALL)
    save_language_model(model, tokenizer, tmp_path)
    loaded, read = load_language_model(tmp_path)
    messages = [
        {"role": "user", "content": "How do I mend my lamp?"},
        {"role": "assistant", "content": "Take some wax."},
    ]
    text = "<|user|>How do I mend my lamp?<|assistant|>Take some wax."
    ids = read.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    bos, eos = read.bos_token_id, read.eos_token_id
    assert ids["input_ids"] == [bos, *read(text, add_special_tokens=False)["input_ids"], eos]
    answered = [
        token for token, mask in zip(ids["input_ids"], ids["assistant_masks"], strict=True) if mask
    ]
    assert read.decode(answered) == "Take some wax.<|eos|>"
    prompt = read.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|bos|><|user|>How do I mend my lamp?<|assistant|>"
    assert loaded.config.vocab_size == len(read)
    replies = ModelAnswers(loaded, read, max_new_tokens=8).answer(["How do I mend my lamp?"])
    assert replies[0].tokens <= 8
