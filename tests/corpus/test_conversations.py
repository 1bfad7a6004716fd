"""Rows that hold messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.corpus import Corpus, Document, Message
from safesail.errors import InputError
from safesail.study import CorpusSource

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " the cat? "},
    {"role": "assistant", "content": "the mat", "name": "not read"},
    {"role": "user", "content": ""},
]


def documents(folder: Path, rows: list[Any], **settings: Any) -> list[Document]:
    lines = (json.dumps({"talk": row}) + "\n" for row in rows)
    (folder / "d.jsonl").write_text("".join(lines))
    source = CorpusSource(path="d.jsonl", text_column="talk", **{"chat_template": True, **settings})
    return list(Corpus([source], folder))


def test_messages_are_a_conversation(tmp_path: Path) -> None:
    (found,) = documents(tmp_path, [TALK])
    assert found.id == "d.jsonl:1"
    assert found.text == "Be kind.\n\n the cat? \n\nthe mat"
    assert found.messages == tuple(Message(m["role"], m["content"]) for m in TALK)


def test_messages_from_parquet_and_a_saved_folder(tmp_path: Path) -> None:
    from datasets import Dataset

    talks = [[{"role": m["role"], "content": m["content"]} for m in TALK]]
    pq.write_table(pa.table({"talk": talks}), tmp_path / "p.parquet")
    Dataset.from_dict({"talk": talks}).save_to_disk(str(tmp_path / "s"))
    expected = documents(tmp_path, [TALK])[0].messages
    for path in ("p.parquet", "s"):
        source = CorpusSource(path=path, text_column="talk", chat_template=True)
        (found,) = Corpus([source], tmp_path)
        assert found.messages == expected


def test_a_text_is_a_users_message(tmp_path: Path) -> None:
    (found,) = documents(tmp_path, ["the cat"])
    assert found == Document("d.jsonl:1", "the cat", (Message("user", "the cat"),))
    (found,) = documents(tmp_path, ["the cat"], chat_template=False)
    assert found.messages is None


def test_json_inside_a_text_is_text(tmp_path: Path) -> None:
    text = json.dumps(TALK)
    assert documents(tmp_path, [text])[0].messages == (Message("user", text),)


def test_conversations_without_words_are_passed_over(tmp_path: Path) -> None:
    empty = [[], None, "", [{"role": "user", "content": " "}]]
    assert [d.id for d in documents(tmp_path, [*empty, TALK])] == ["d.jsonl:5"]


def test_halves_of_surrogate_pairs_in_messages(tmp_path: Path) -> None:
    (found,) = documents(tmp_path, [[{"role": "user", "content": "a\ud800"}]])
    assert found.messages == (Message("user", "a\ufffd"),)


def test_messages_without_chat_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2: 'talk' holds a list.*set chat_template = true"):
        documents(tmp_path, ["text", TALK], chat_template=False)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"role": "user", "content": [{"type": "image"}]}, "the content of message 5 is not a str"),
        ({"role": "user", "content": None}, "the content of message 5 is not a string"),
        ({"role": "user"}, "the content of message 5 is not a string"),
        ({"from": "human", "value": "x"}, "message 5 is not an object with role and content"),
        ({"role": 3, "content": "x"}, "message 5 is not an object with role and content"),
        ("text", "message 5 is not an object with role and content"),
    ],
)
def test_what_is_no_message_is_named(tmp_path: Path, message: Any, fault: str) -> None:
    with pytest.raises(InputError, match=rf"^d\.jsonl, row 2: {fault}") as caught:
        documents(tmp_path, [TALK, [*TALK, message]])
    assert "\n" not in str(caught.value)
