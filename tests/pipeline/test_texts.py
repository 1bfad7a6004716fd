"""Texts that do not fit the model are read in pieces, and that is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_folder import change_setting, make_study

from safesail.language_model import LanguageModel
from safesail.pipeline import Selection, Sweep, collect, rank, train_saes
from safesail.study import Study


def test_a_pair_longer_than_the_context_is_read_in_pieces(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    # Of both texts the first 120 words are the same: only the second piece can tell them apart.
    same = "a cold boat " * 40
    with (study / "concepts.jsonl").open("a", encoding="utf-8") as file:
        for number in range(12):
            positive, negative = (f"{same} {word} {number}" for word in ("thief", "small"))
            pair = {"concept": "length", "positive": positive, "negative": negative}
            file.write(json.dumps(pair) + "\n")
    ranking = rank(Study.open(study))
    rows = [row for row in ranking.rows if row["concept"] == "length"]
    assert rows
    assert max(row["i_cdf"] for row in rows) > 0
    text = "24 of the pairs' texts are longer than the model's context and were read in pieces"
    assert all(text in row["warnings"] for row in ranking.rows)


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] }}<|eos|>{% endfor %}"
)


def rank_it(study: Study) -> None:
    rank(study)


def collect_it(study: Study) -> None:
    collect(study, Selection(limit=2))


def train_it(study: Study) -> None:
    train_saes(study, Sweep(layers=(1,), sparsities=(8,), width=64, steps=20, batch=64))


@pytest.mark.parametrize("stage", [rank_it, collect_it, train_it])
def test_conversations_reach_every_stage_as_messages(
    stage: Callable[[Study], None],
    fresh: Path,
    copy: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy(fresh)
    corpus = folder / "corpus.jsonl"
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    rows = [{"text": [{"role": "user", "content": text}]} for text in texts]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    change_setting(folder, 'path = "corpus.jsonl"', 'path = "corpus.jsonl"\nchat_template = true')
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)
    tokenize = LanguageModel.tokenize
    read: list[tuple[str, str]] = []

    def watched(self: LanguageModel, text: str, **given: Any) -> Any:
        found = tokenize(self, text, **given)
        if given["document"].startswith("corpus.jsonl:"):
            read.append((text, "".join(s for piece in found for s in piece.token_strings)))
        return found

    monkeypatch.setattr(LanguageModel, "tokenize", watched)
    stage(Study.open(folder))
    assert len(read) > 20
    assert all(found == f"user: {text}<|eos|>" for text, found in read)
