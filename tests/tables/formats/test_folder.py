"""Folders are written whole or not at all, and replace nothing that is not theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safesail.errors import InputError, StorageError
from safesail.tables.formats import write_file, written_folder
from safesail.tables.formats._folder import holds_only


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with an earlier export."""
    write_file(tmp_path / "out/data/old.txt", "old")
    return tmp_path / "out"


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_new_takes_the_place_of_the_old(target: Path) -> None:
    with written_folder(target, holds_only("data")) as new:
        write_file(new / "data/new.txt", b"new")
        assert files(target) == ["data/old.txt"]
    assert files(target.parent) == ["out/data/new.txt"]


def test_a_failure_leaves_the_old(target: Path) -> None:
    def fail_half_way() -> None:
        with written_folder(target, holds_only("data")) as new:
            write_file(new / "data/new.txt", "new")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert files(target.parent) == ["out/data/old.txt"]


def test_a_disk_that_refuses_leaves_the_old(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def refuse(source: Path, place: Path) -> None:
        if source.name == "new":
            raise OSError(28, "No space left on device")
        rename(source, place)

    monkeypatch.setattr(os, "rename", refuse)
    with (
        pytest.raises(StorageError, match=r"could not write .*out: No space left on device"),
        written_folder(target, holds_only("data")) as new,
    ):
        write_file(new / "data/new.txt", "new")
    assert files(target.parent) == ["out/data/old.txt"]


@pytest.mark.parametrize("other", ["data", "other.txt"])
def test_what_is_not_ours_is_left_alone(target: Path, other: str) -> None:
    place = target / "data/old.txt" if other == "data" else target
    write_file(target / "other.txt", "other")
    before = files(target)
    with (
        pytest.raises(InputError, match="holds other things"),
        written_folder(place, holds_only("data")),
    ):
        pytest.fail("nothing is begun")
    assert files(target) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with written_folder(tmp_path / "out", lambda folder: False) as new:
        write_file(new / "x", "x")
    assert files(tmp_path) == ["out/x"]
