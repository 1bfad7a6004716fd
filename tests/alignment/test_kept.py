"""Answers that are kept: asked once, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safesail.alignment import Likelihood, Reply
from safesail.alignment._kept import KeptAnswers
from safesail.errors import StorageError

KEY = {"model": "m", "max_new_tokens": 4}


class Counting:
    """Says a prompt backwards, and remembers what it was asked."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.read: list[str] = []
        self._stop_after = stop_after

    def answer(self, prompts: Sequence[str]) -> list[Reply]:
        if self._stop_after is not None and len(self.asked) + len(prompts) > self._stop_after:
            raise KeyboardInterrupt
        self.asked += prompts
        return [Reply(prompt[::-1], len(prompt), cut=prompt == "cut") for prompt in prompts]

    def likelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        self.read += texts
        return [Likelihood(len(text) / 7, len(text)) for text in texts]


def never() -> Counting:
    raise AssertionError("nothing was missing")


@given(
    st.lists(st.text(max_size=20), max_size=30),
    st.lists(st.text(max_size=20), max_size=30),
    st.integers(0, 200),
)
def test_what_was_answered_is_not_asked_again(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], then: list[str], lost: int
) -> None:
    """Also where a kill cut the file anywhere."""
    folder = tmp_path_factory.mktemp("kept")
    one, two = Counting(), Counting()
    kept = KeptAnswers(folder, KEY, lambda: one)
    assert kept.answer(first) == [Reply(p[::-1], len(p), cut=p == "cut") for p in first]
    assert kept.likelihood(first) == [Likelihood(len(p) / 7, len(p)) for p in first]
    assert sorted(one.asked) == sorted(set(first))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - lost)])
    again = KeptAnswers(folder, KEY, lambda: two)
    assert again.answer(first + then) == Counting().answer(first + then)
    assert again.likelihood(then) == Counting().likelihood(then)
    if not lost:
        assert not set(two.asked) & set(first)
        assert not set(two.read) & set(first)
    last = KeptAnswers(folder, KEY, never)
    assert last.answer(first + then) == Counting().answer(first + then)
    assert last.likelihood(then) == Counting().likelihood(then)


def test_an_interruption_keeps_what_came_before(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(300)]
    one, two = Counting(stop_after=260), Counting()
    with pytest.raises(KeyboardInterrupt):
        KeptAnswers(tmp_path, KEY, lambda: one).answer(prompts)
    KeptAnswers(tmp_path, KEY, lambda: two).complete(prompts, [])
    assert one.asked + two.asked == prompts
    assert len(two.asked) == 300 - 256


def test_another_system_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, two = Counting(), Counting()
    KeptAnswers(tmp_path, KEY, lambda: one).complete(["a"], ["t"])
    KeptAnswers(tmp_path, {**KEY, "max_new_tokens": 5}, lambda: two).complete(["a"], ["t"])
    assert (two.asked, two.read) == (["a"], ["t"])
    keys = [json.loads(path.read_text().splitlines()[0])["key"] for path in tmp_path.iterdir()]
    assert sorted(one["max_new_tokens"] for one in keys) == [4, 5]


def test_facts_are_kept(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path, KEY, Counting)
    kept.note(parameters=3)
    kept.note(diverged="the loss is nan at step 2")
    expected = {"parameters": 3, "diverged": "the loss is nan at step 2"}
    assert KeptAnswers(tmp_path, KEY, never).facts == kept.facts == expected


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    kept = KeptAnswers(tmp_path / "file", KEY, Counting)
    with pytest.raises(StorageError, match="could not write"):
        kept.answer(["a"])
