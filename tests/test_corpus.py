"""Documents from every format, the same in every pass."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.corpus import Corpus, Document
from safesail.errors import InputError
from safesail.study import CorpusSource

TEXTS = ["first text", 'with "quotes", commas', "naïve 猫\u2028 same line"]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(texts: list[str], column: str = "text") -> str:
    return "".join(json.dumps({"id": 1, column: text}, ensure_ascii=False) + "\n" for text in texts)


def corpus(folder: Path, *names: str, column: str = "text") -> Corpus:
    return Corpus([CorpusSource(path=name, text_column=column) for name in names], folder)


def texts_of(source: Corpus) -> list[str]:
    return [document.text for document in source]


def make(folder: Path, name: str, texts: list[str]) -> None:
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"other": [1] * len(texts), "text": texts}), path)
    elif path.suffix == ".csv":
        quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
        write(path, "other,text\n" + "".join(f"1,{text}\n" for text in quoted))
    else:
        write(path, jsonl(texts) if path.suffix == ".jsonl" else "\n".join(texts))


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet", "d.txt"])
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, TEXTS)
    found = list(corpus(tmp_path, name))
    assert [document.text for document in found] == TEXTS
    assert [document.id for document in found] == [f"{name}:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.txt"])
def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, TEXTS)
    content = (tmp_path / name).read_text(encoding="utf-8")
    write(tmp_path / name, "\ufeff" + "\r\n".join(content.split("\n")))
    assert texts_of(corpus(tmp_path, name)) == TEXTS


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet", "d.txt"])
def test_blank_texts_are_passed_over_and_numbers_stay(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, ["one", "  ", "three"])
    assert [d.id for d in corpus(tmp_path, name)] == [f"{name}:1", f"{name}:3"]


def test_null_texts_are_passed_over(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", None, "three"]}), tmp_path / "d.parquet")
    write(tmp_path / "d.jsonl", '{"text": "one"}\n\n{"text": null}\n{"text": "four"}\n')
    assert texts_of(corpus(tmp_path, "d.parquet")) == ["one", "three"]
    assert [d.id for d in corpus(tmp_path, "d.jsonl")] == ["d.jsonl:1", "d.jsonl:4"]


def test_a_pass_that_stops_early_disturbs_no_other(tmp_path: Path) -> None:
    make(tmp_path, "d.jsonl", TEXTS)
    found = corpus(tmp_path, "d.jsonl")
    assert next(iter(found)).text == TEXTS[0]
    assert texts_of(found) == TEXTS


def test_ids_are_unique_where_names_repeat(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make(tmp_path, f"{folder}/d.jsonl", [f"{text} {folder}" for text in TEXTS])
    ids = [document.id for document in corpus(tmp_path, "a/d.jsonl", "b/d.jsonl")]
    assert len(set(ids)) == len(ids) == 2 * len(TEXTS)
    # Where a name stands alone its ids depend neither on its folder nor on its neighbours.
    assert {id for id in ids if id.startswith("d.jsonl:")} == {
        document.id for document in corpus(tmp_path, "b/d.jsonl")
    }


FAULTS = [
    ("d.jsonl", '{"text": "a"}\n{oops\n', r"d\.jsonl, line 2: not JSON"),
    ("d.jsonl", '{"text": "a"}\n\n3\n', r"d\.jsonl, line 3: expected an object with 'text'"),
    ("d.jsonl", '{"text": "a"}\n{"body": "b"}\n', r"d\.jsonl, row 2: no column 'text'; there"),
    ("d.jsonl", '{"text": "a"}\n{"text": 5}\n', r"d\.jsonl, row 2: 'text' is not text"),
    ("d.jsonl", "[" * 200_000, r"d\.jsonl, line 1: not JSON"),
    ("d.csv", "id,body\n1,x\n", r"d\.csv, row 1: no column 'text'; there are id, body: set text_c"),
    ("d.csv", 'text\n"a\nb\n', r"d\.csv, line 2: not CSV"),
    ("d.csv", "text\ra\rb\r", r"d\.csv, line \d: not CSV"),
    ("d.parquet", b"PAR1 not really", r"cannot read .*d\.parquet as Parquet"),
    ("d.txt", "naïve".encode("latin-1"), r"d\.txt is not UTF-8"),
    ("d.jsonl", '{"text": "naïve"}'.encode("latin-1"), r"d\.jsonl is not UTF-8"),
    ("d.jsonl", "", r"the corpus is empty: no text in d\.jsonl"),
    ("d.txt", " \n\n", r"the corpus is empty"),
    ("d.csv", "", r"the corpus is empty"),
    ("d.jsonl", '{"text": {"role": "user"}}\n', r"d\.jsonl, row 1: 'text' is not text"),
    (
        "d.jsonl",
        '{"text": ["a"]}\n',
        r"row 1: 'text' holds a list, not text: .*chat_template = true",
    ),
    ("d.docx", "x", r"a corpus is read from \.jsonl, .*\.csv, \.parquet, \.txt, or a folder"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_each_fault_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        texts_of(corpus(tmp_path, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 2])
def test_a_missing_column_of_parquet_is_named(tmp_path: Path, count: int) -> None:
    pq.write_table(
        pa.table({"body": pa.array(["x", "y"][:count], pa.string())}), tmp_path / "d.parquet"
    )
    with pytest.raises(InputError, match=r"no column 'text'; there are body: set text_column"):
        texts_of(corpus(tmp_path, "d.parquet"))
    if count:
        assert texts_of(corpus(tmp_path, "d.parquet", column="body")) == ["x", "y"]


def test_a_repeated_text_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", ["one", "two", "one"])
    make(tmp_path, "b.jsonl", ["two", "three"])
    assert sorted(texts_of(corpus(tmp_path, "a.jsonl", "b.jsonl"))) == ["one", "three", "two"]


def test_halves_of_surrogate_pairs_are_read_as_replacement_characters(tmp_path: Path) -> None:
    """One such row in a billion tokens must not end the run."""
    row = r'{"text": "a\ud800b \udfff\udfff \ud83d\ude42", "id": "\udc00"}'
    write(tmp_path / "d.jsonl", row + "\n")
    (found,) = Corpus([CorpusSource(path="d.jsonl", id_column="id")], tmp_path)
    assert found == Document("\ufffd", "a\ufffdb \ufffd\ufffd 🙂")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    found = corpus(tmp_path, "none.jsonl")
    for use in (texts_of, Corpus.fingerprint):
        with pytest.raises(InputError, match=r"corpus file .*none\.jsonl does not exist"):
            use(found)


def test_hub_without_network_is_one_line(tmp_path: Path) -> None:
    source = CorpusSource(hub="nobody/nothing-of-the-kind")
    with pytest.raises(InputError, match="cannot read dataset 'nobody/nothing-of-the-kind'"):
        texts_of(Corpus([source], tmp_path))


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    make(tmp_path, "d.jsonl", TEXTS)
    before = corpus(tmp_path, "d.jsonl").fingerprint()
    other = tmp_path / "other"
    other.mkdir()
    make(other, "d.jsonl", TEXTS)
    os.utime(other / "d.jsonl", (0, 0))
    assert corpus(other, "d.jsonl").fingerprint() == before
    make(other, "d.jsonl", [TEXTS[0].upper(), *TEXTS[1:]])
    assert corpus(other, "d.jsonl").fingerprint() != before
    assert corpus(tmp_path, "d.jsonl", column="body").fingerprint() != before
    source = CorpusSource(path="d.jsonl")
    assert Corpus([source], tmp_path, [Document("x", "y")]).fingerprint() != before


@pytest.mark.parametrize(
    "change", [{"weight": 2.0}, {"id_column": "id"}, {"chat_template": True}, {"text_column": "b"}]
)
def test_fingerprint_follows_every_setting(tmp_path: Path, change: dict[str, Any]) -> None:
    make(tmp_path, "d.jsonl", TEXTS)
    for place in ({"path": "d.jsonl"}, {"hub": "some/set"}):
        plain, changed = (
            Corpus([CorpusSource.model_validate({**place, **settings})], tmp_path).fingerprint()
            for settings in ({}, change)
        )
        assert plain != changed
