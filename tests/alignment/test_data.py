"""Prompts and answers: read from files, mixed, and as tokens."""

from __future__ import annotations

import json
from pathlib import Path

import models
import pandas as pd
import pytest

from safesail.alignment import (
    Example,
    encode_examples,
    encode_prompt,
    mix,
    read_examples,
)
from safesail.alignment._data import IGNORED, collate
from safesail.errors import AlignmentError, InputError
from safesail.study import CorpusSource

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
EXAMPLES = [
    Example(f"how do I {verb} the boat?", f"I will not {verb} it.")
    for verb in ("sink", "burn", "steal", "paint", "sail", "hide", "break", "row", "sell", "buy")
]


def test_prompts_and_answers_meet_as_when_a_model_answers() -> None:
    tokenizer = models.byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    encoded = encode_examples(EXAMPLES, tokenizer, max_tokens=64)
    assert (encoded.cut, encoded.left_out) == (0, 0)
    for example, (token_ids, answer_from) in zip(EXAMPLES, encoded.examples, strict=True):
        assert token_ids[:answer_from] == encode_prompt(example.prompt, tokenizer)
        opening = f"[user] {example.prompt}<|eos|>[assistant] "
        assert tokenizer.decode(token_ids[:answer_from]) == opening
        assert tokenizer.decode(token_ids[answer_from:]) == f"{example.answer}<|eos|>"
    batch = collate(encoded.examples[:2], padding=2)
    for row in range(2):
        token_ids, answer_from = encoded.examples[row]
        labels = batch["labels"][row].tolist()
        assert labels[answer_from : len(token_ids)] == token_ids[answer_from:]
        assert set(labels[:answer_from] + labels[len(token_ids) :]) <= {IGNORED}
        assert int(batch["attention_mask"][row].sum()) == len(token_ids)


def test_long_examples_lose_their_end_or_are_left_out() -> None:
    tokenizer = models.byte_tokenizer()
    lengths = [len(encode_prompt(example.prompt, tokenizer)) for example in EXAMPLES]
    most = max(lengths)
    encoded = encode_examples(EXAMPLES, tokenizer, max_tokens=most)
    assert encoded.left_out == lengths.count(most)
    assert all(len(one.token_ids) <= most for one in encoded.examples)
    assert encoded.cut > 0
    with pytest.raises(InputError, match="no prompt leaves room for an answer within 3 tokens"):
        encode_examples(EXAMPLES, tokenizer, max_tokens=3)


def test_templates_that_cannot_be_trained_with() -> None:
    tokenizer = models.byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no\nsuch role') }}"
    with pytest.raises(AlignmentError, match="the chat template refuses 'how do I sink"):
        encode_examples(EXAMPLES, tokenizer, max_tokens=64)
    tokenizer.chat_template = "{{ messages | length }}: {{ messages[0].content }}"
    with pytest.raises(AlignmentError, match="changes the prompt 'how do I sink"):
        encode_examples(EXAMPLES, tokenizer, max_tokens=64)


def test_examples_from_files(tmp_path: Path) -> None:
    rows = [{"prompt": e.prompt, "answer": e.answer, "more": 1} for e in EXAMPLES]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "a.jsonl").write_text(text + "\n\n", encoding="utf-8")
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    renamed = pd.DataFrame(rows).rename(columns={"prompt": "question", "answer": "reply"})
    renamed.to_parquet(tmp_path / "a.parquet")
    assert read_examples(CorpusSource(path="a.jsonl"), tmp_path) == EXAMPLES
    assert read_examples(CorpusSource(path="a.csv"), tmp_path) == EXAMPLES
    source = CorpusSource(path="a.parquet")
    found = read_examples(source, tmp_path, prompt_column="question", answer_column="reply")
    assert found == EXAMPLES


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', r"row 2: no column 'answer'; there are prompt"),
        ('{"prompt": "a", "answer": " "}', "row 2: 'answer' holds no text"),
        ('{"prompt": 3, "answer": "b"}', "row 2: 'prompt' holds no text"),
        ("{", "line 2: not JSON"),
    ],
)
def test_rows_that_are_no_examples(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "answer": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_examples(CorpusSource(path="a.jsonl"), tmp_path)


def test_a_file_without_examples(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no examples in a\.jsonl"):
        read_examples(CorpusSource(path="a.jsonl"), tmp_path)


def test_examples_saved_by_datasets(tmp_path: Path) -> None:
    from datasets import Dataset

    columns = {"prompt": [e.prompt for e in EXAMPLES], "answer": [e.answer for e in EXAMPLES]}
    Dataset.from_dict(columns).save_to_disk(str(tmp_path / "saved"))
    assert read_examples(CorpusSource(path="saved"), tmp_path) == EXAMPLES


def test_benign_examples_are_mixed_in_by_their_share() -> None:
    benign = [Example(f"{number}?", f"{number}.") for number in range(20)]
    mixed = mix(EXAMPLES, benign, 0.6, seed=1)
    drawn = mixed[len(EXAMPLES) :]
    assert mixed[: len(EXAMPLES)] == EXAMPLES
    assert len(drawn) == len(set(drawn)) == 15
    assert set(drawn) <= set(benign)
    assert mix(EXAMPLES, benign, 0.6, seed=1) == mixed != mix(EXAMPLES, benign, 0.6, seed=2)
    assert mix(EXAMPLES, [], 0) == EXAMPLES
    with pytest.raises(InputError, match="needs 30 benign ones, there are 20"):
        mix(EXAMPLES, benign, 0.75)
    with pytest.raises(ValueError, match="below 1"):
        mix(EXAMPLES, benign, 1)
