"""Several sources: what comes when, and how much of each."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from safesail.corpus import Corpus, Document
from safesail.study import CorpusSource


def write(folder: Path, name: str, texts: list[str]) -> None:
    (folder / name).write_text("\n".join(texts), encoding="utf-8")


def texts_of(found: Corpus) -> list[str]:
    return [document.text for document in found]


def test_the_source_that_is_behind_is_next(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", ["a1", "a2", "a3", "a4"])
    write(tmp_path, "b.txt", ["b1 has ten"])
    write(tmp_path, "c.txt", ["c1", "c2"])
    sources = [CorpusSource(path=name) for name in ("a.txt", "b.txt", "c.txt")]
    found = Corpus(sources, tmp_path, [Document("x:1", "x1"), Document("x:2", "x2")])
    # Of equal ones the first; b.txt, ten characters ahead, has no more.
    expected = ["a1", "b1 has ten", "c1", "x1", "a2", "c2", "x2", "a3", "a4"]
    assert texts_of(found) == expected
    assert texts_of(found) == expected


def test_a_long_document_lets_the_others_catch_up(tmp_path: Path) -> None:
    write(tmp_path, "long.txt", ["l" * 10, "m" * 10])
    write(tmp_path, "short.txt", [f"s{n:02}" for n in range(8)])
    found = Corpus([CorpusSource(path=f"{name}.txt") for name in ("long", "short")], tmp_path)
    assert [text[0] for text in texts_of(found)] == list("lssssmssss")


def test_the_extra_texts_are_a_source_of_weight_one(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", [f"a{n:02}" for n in range(30)])
    extra = [Document(f"x{n}", f"x{n:02}") for n in range(10)]
    found = Corpus([CorpusSource(path="a.txt", weight=3)], tmp_path, extra)
    assert [sum(text[0] == "x" for text in texts_of(found)[:n]) for n in (4, 20, 40)] == [1, 5, 10]


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.floats(0.05, 20), min_size=2, max_size=4),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=9),
)
def test_shares_of_the_text_are_those_of_the_weights(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float], lengths: list[int]
) -> None:
    """At any moment, but for one document of each."""
    folder = tmp_path_factory.mktemp("mixture")
    for place in range(len(weights)):
        texts = [f"{place}{n:04}" + "x" * lengths[n % len(lengths)] for n in range(400)]
        write(folder, f"{place}.txt", texts)
    sources = [CorpusSource(path=f"{n}.txt", weight=w) for n, w in enumerate(weights)]
    read = [0] * len(weights)
    for document in islice(Corpus(sources, folder), 400):
        read[int(document.text[0])] += len(document.text)
        ratios = [count / weight for count, weight in zip(read, weights, strict=True)]
        assert max(ratios) - min(ratios) <= 45 / min(weights) + 1e-6


def test_a_copy_does_not_count(tmp_path: Path) -> None:
    """What b.txt shares with a.txt takes nothing from b's share."""
    write(tmp_path, "a.txt", [f"a{n}" for n in range(8)])
    write(tmp_path, "b.txt", ["a0", "b0", "a1", "b1", "a2", "b2"])
    found = Corpus([CorpusSource(path="a.txt"), CorpusSource(path="b.txt")], tmp_path)
    assert texts_of(found) == ["a0", "b0", "a1", "b1", "a2", "b2", *(f"a{n}" for n in range(3, 8))]


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_a_weight_is_positive_and_finite(weight: float) -> None:
    with pytest.raises(ValidationError):
        CorpusSource(path="a.txt", weight=weight)
