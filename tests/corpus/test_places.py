"""Where documents lie: compressed files, shards, folders of `datasets`, the hub."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safesail.corpus import Corpus
from safesail.errors import InputError
from safesail.study import CorpusSource

TEXTS = ["first text", "naïve 猫\u2028 same line", "third"]


def lines(texts: list[str]) -> bytes:
    rows = ({"text": text, "id": f"id {text}"} for text in texts)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def corpus(folder: Path, path: str, **settings: Any) -> Corpus:
    return Corpus([CorpusSource(path=path, **settings)], folder)


def ids(found: Corpus) -> list[str]:
    return [document.id for document in found]


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_lines(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"my.set.jsonl.{kind}"
    with pa.CompressedOutputStream(str(path), {"gz": "gzip", "zst": "zstd"}[kind]) as file:
        file.write(lines(TEXTS))
    found = list(corpus(tmp_path, path.name))
    assert [document.text for document in found] == TEXTS
    assert found[2].id == f"{path.name}:3"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=rf"cannot read .*{path.name}: "):
        list(corpus(tmp_path, path.name))


def test_compressed_parts_behind_each_other(tmp_path: Path) -> None:
    """As `cat a.gz b.gz` and parallel compressors leave them."""
    parts = b"".join(gzip.compress(lines([text])) for text in TEXTS)
    (tmp_path / "d.jsonl.gz").write_bytes(parts)
    assert [document.text for document in corpus(tmp_path, "d.jsonl.gz")] == TEXTS


def test_what_is_not_compressed_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(lines(TEXTS))
    with pytest.raises(InputError, match=r"cannot read .*d\.jsonl\.gz: "):
        list(corpus(tmp_path, "d.jsonl.gz"))
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"text\na\n"))
    with pytest.raises(InputError, match="a corpus is read from"):
        list(corpus(tmp_path, "d.csv.gz"))


def test_shards_are_read_in_name_order_with_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("b-2", "a-1", "a-3"):
        pq.write_table(pa.table({"text": [f"{name} x", f"{name} y"]}), tmp_path / f"{name}.parquet")
    found = corpus(tmp_path, "*.parquet")
    expected = [f"{name}.parquet:{row}" for name in ("a-1", "a-3", "b-2") for row in (1, 2)]
    assert ids(found) == expected
    assert ids(corpus(tmp_path, "a-*.parquet")) == expected[:4]


def test_shards_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.txt").write_text(f"in {folder}")
    assert ids(corpus(tmp_path, "*/d.txt")) == ["d.txt:1", "d.txt(2):1"]
    assert ids(corpus(tmp_path, "**/d.txt")) == ["d.txt:1", "d.txt(2):1"]


def test_brackets_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]"
    folder.mkdir()
    (folder / "d.txt").write_text("text")
    assert ids(corpus(folder, "*.txt")) == ["d.txt:1"]
    assert ids(corpus(tmp_path, "a[1]/*.txt")) == ["d.txt:1"]


def test_patterns_that_match_nothing_or_too_much_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("text")
    (tmp_path / "e.csv").write_text("text\na")
    for use in (list, Corpus.fingerprint):
        with pytest.raises(InputError, match=r"corpus pattern .*\*\.parquet matches no file"):
            use(corpus(tmp_path, "*.parquet"))
        with pytest.raises(InputError, match=r"several kinds \(\.csv, \.txt\): narrow it"):
            use(corpus(tmp_path, "*"))


def test_the_fingerprint_follows_every_shard(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    before = corpus(tmp_path, "*.txt").fingerprint()
    (tmp_path / "b.txt").write_text("c")
    changed = corpus(tmp_path, "*.txt").fingerprint()
    (tmp_path / "c.txt").write_text("c")
    assert len({before, changed, corpus(tmp_path, "*.txt").fingerprint()}) == 3


def saved(path: Path, texts: list[str]) -> Any:
    from datasets import Dataset

    columns = {"text": texts, "id": [f"id {text}" for text in texts], "more": [1] * len(texts)}
    dataset = Dataset.from_dict(columns)
    dataset.save_to_disk(str(path))
    return dataset


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    saved(tmp_path / "set", [*TEXTS, " "])
    found = list(corpus(tmp_path, "set"))
    assert [document.text for document in found] == TEXTS
    assert found[2].id == "set:3"
    assert ids(corpus(tmp_path, "set", id_column="id")) == [f"id {text}" for text in TEXTS]
    with pytest.raises(InputError, match="row 1: no column 'body'; there are text, id, more"):
        list(corpus(tmp_path, "set", text_column="body"))


def test_a_saved_folder_with_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    splits = {name: Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    for split in ("train", "test"):
        assert [d.text for d in corpus(tmp_path, "set", split=split)] == [split]
    with pytest.raises(InputError, match=r"set has no split 'valid'; there are train, test"):
        list(corpus(tmp_path, "set", split="valid"))
    prints = {corpus(tmp_path, "set", split=split).fingerprint() for split in splits}
    assert len(prints) == 2


def test_the_fingerprint_of_a_folder_is_that_of_its_data(tmp_path: Path) -> None:
    for name, texts in (("a", TEXTS), ("b", TEXTS), ("c", TEXTS[:2])):
        (tmp_path / name).mkdir()
        saved(tmp_path / name / "set", texts)
    (tmp_path / "b" / "set" / "cache-1.arrow").write_bytes(b"x")
    prints = [corpus(tmp_path / name, "set").fingerprint() for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*set as a folder made by") as e:
        list(corpus(tmp_path, "set"))
    assert "\n" not in str(e.value)
    saved(tmp_path / "whole", TEXTS)
    (data,) = (tmp_path / "whole").glob("*.arrow")
    data.write_bytes(data.read_bytes()[:50])
    with pytest.raises(InputError, match=r"cannot read .*whole as a folder made by save_to_disk"):
        list(corpus(tmp_path, "whole"))


class BrokenHub:
    """A streamed dataset whose connection breaks."""

    column_names = None

    def __iter__(self) -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        yield {"text": "two"}
        raise RuntimeError("connection reset\nby peer")


def test_a_hub_that_fails_half_way_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = SimpleNamespace(load_dataset=lambda *_, **__: BrokenHub())
    monkeypatch.setitem(sys.modules, "datasets", hub)
    read = []
    with pytest.raises(InputError) as caught:
        read.extend(Corpus([CorpusSource(hub="some/set")], tmp_path))
    message = "cannot read dataset 'some/set' from the hub after 2 rows: connection reset; check"
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_hub_is_streamed_without_what_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real streamed dataset, from files instead of the hub."""
    import datasets

    pq.write_table(pa.table({"text": TEXTS, "id": [1, 2, 3], "x": [0] * 3}), tmp_path / "d.parquet")
    streamed = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "d.parquet"),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: streamed)
    found = list(Corpus([CorpusSource(hub="some/set", id_column="id")], tmp_path))
    assert [(document.id, document.text) for document in found] == list(
        zip("123", TEXTS, strict=True)
    )
