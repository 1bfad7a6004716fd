"""Checkpoints: damage is noticed whatever byte it hits, and the one before goes on."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collected import count_batches, left_over, make_ranked, stopped_after, tables
from planted_contexts import plant, sketch_of
from study_folder import change_setting

from safesail.contexts import Checkpoints, SketchSettings, Work
from safesail.errors import StorageError
from safesail.pipeline import Selection, collect
from safesail.study import Study
from safesail.tables import _whole

Copy = Callable[[Path], Path]
SMALL = SketchSettings(top=3, per_bin=4, silent_sample=20, seed=0)
CHOSEN = Selection(sae="first")


def work_of(documents: int, plan: str = "plan") -> Work:
    sketches = {name: sketch_of(plant(seed, documents), SMALL) for seed, name in enumerate("ab")}
    return Work(plan, sketches, 128, done={0, 2}, chunk=3, batches=documents, shard=(1, 3))


def content(work: Work) -> dict[str, Any]:
    """All of a work, arrays as bytes."""
    place = {k: v for k, v in vars(work).items() if k != "sketches"}
    arrays = {
        f"{name}/{key}": (str(array.dtype), array.shape, array.tobytes())
        for name, sketch in work.sketches.items()
        for key, array in sketch.arrays().items()
    }
    return {**place, **arrays}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    work = work_of(40)
    work.write(tmp_path / "w")
    assert content(Work.read(tmp_path / "w")) == content(work)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def places(size: int) -> list[int]:
    """Every byte of both ends, where the archive's structure lies, and a sample of the rest."""
    middle = random.Random(0).sample(range(300, size - 2500), 400)
    return [*range(300), *sorted(middle), *range(size - 2500, size)]


def test_every_flipped_bit_is_noticed(tmp_path: Path, record_property: Any) -> None:
    path = tmp_path / "w"
    work_of(40).write(path)
    whole = path.read_bytes()
    generator = random.Random(1)
    tried = places(len(whole))
    for place in tried:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged") as error:
            Work.read(path)
        assert str(error.value).count("\n") == 0
    record_property("bits flipped, of bytes", (len(tried), len(whole)))
    assert len(tried) > 3000


@pytest.mark.parametrize("change", ["cut", "cut at a member", "longer", "zeros at the end"])
def test_every_other_length_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "w"
    work_of(40).write(path)
    whole = path.read_bytes()
    found = {
        "cut": [whole[:size] for size in [0, 1, 31, 32, 33, *places(len(whole))[::7]]],
        "cut at a member": [whole[:at] for at in _all_places(whole, b"PK")],
        "longer": [whole + b"\0", whole + whole, whole + os.urandom(32)],
        "zeros at the end": [
            whole[:size] + bytes(len(whole) - size) for size in range(32, len(whole), 4096)
        ],
    }[change]
    for damaged in found:
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            Work.read(path)


def _all_places(content: bytes, wanted: bytes) -> list[int]:
    found, at = [], content.find(wanted)
    while at >= 0:
        found.append(at)
        at = content.find(wanted, at + 1)
    assert len(found) > 40
    return found


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safesail.contexts._work._VERSION", 99)
    work_of(4).write(tmp_path / "w")
    monkeypatch.undo()
    with pytest.raises(StorageError, match="another version of safesail"):
        Work.read(tmp_path / "w")


def test_two_files_take_turns_and_the_newest_whole_one_is_used(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "x")
    assert checkpoints.load("plan", "cpu") == (None, [])
    work = work_of(4)
    for batches in (1, 2, 3):
        work.batches = batches
        checkpoints.save(work)
    older, newer = sorted(tmp_path.iterdir())
    assert (Work.read(older).batches, Work.read(newer).batches) == (2, 3)
    found, faults = checkpoints.load("plan", "cpu")
    assert (found.batches if found else None, faults) == (3, [])
    newer.write_bytes(newer.read_bytes()[:-1])
    found, faults = checkpoints.load("plan", "cpu")
    assert found is not None
    assert found.batches == 2
    assert len(faults) == 1
    assert str(newer) in faults[0]
    # The next one takes the damaged one's place: the one that is in use stays.
    found.batches = 9
    checkpoints.save(found)
    assert (Work.read(older).batches, Work.read(newer).batches) == (2, 9)
    for path in (older, newer):
        path.write_bytes(b"")
    found, faults = checkpoints.load("plan", "cpu")
    assert (found, len(faults)) == (None, 2)
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_plan_is_not_used(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "x")
    other, mine = work_of(4, "other"), work_of(4, "mine")
    other.saved = 50
    checkpoints.save(other)
    assert checkpoints.load("mine", "cpu") == (None, [])
    checkpoints.save(mine)
    found, faults = checkpoints.load("mine", "cpu")
    assert (found.plan if found else None, faults) == ("mine", [])


def test_what_kills_left_half_written_goes_when_it_is_old(tmp_path: Path) -> None:
    names = [".x.checkpoint-0.abc", ".x.checkpoint-1.def", ".y.checkpoint-0.abc"]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    now = time.time()
    for name in names[1:]:
        os.utime(tmp_path / name, (now - 7200, now - 7200))
    Checkpoints(tmp_path, "x").load("plan", "cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], names[2]]


class FullDisk(FileIO):
    """A file on a disk with so many bytes left."""

    left = 0

    def write(self, content: Any) -> int:
        size = min(len(memoryview(content)), FullDisk.left)
        if not size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        FullDisk.left -= size
        return super().write(memoryview(content)[:size])


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.97, 0.999, "last byte", "sync", "rename"])
def test_a_full_disk_leaves_the_checkpoints_before_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float | str
) -> None:
    checkpoints = Checkpoints(tmp_path, "x")
    work = work_of(40)
    for batches in (1, 2):
        work.batches = batches
        checkpoints.save(work)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if share == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    elif share == "rename":
        monkeypatch.setattr(os, "replace", fail)
    else:
        size = len(files["x.checkpoint-0"])
        FullDisk.left = size - 1 if share == "last byte" else int(size * float(share))
        monkeypatch.setattr(_whole, "FileIO", FullDisk)
    work.batches = 3
    with pytest.raises(StorageError, match=r"could not write .*x\.checkpoint-1: No space left"):
        checkpoints.save(work)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    found, faults = checkpoints.load("plan", "cpu")
    assert (found.batches if found else None, faults) == (2, [])


# A study's run, stopped in the middle and taken up again.


@pytest.fixture(scope="module")
def ranked(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ranked(fresh, tmp_path_factory.mktemp("work") / "study")


@pytest.fixture(scope="module")
def collected(ranked: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    from study_folder import copy_study

    folder = copy_study(ranked, tmp_path_factory.mktemp("collected") / "study")
    collect(Study.open(folder), CHOSEN)
    assert not left_over(folder)
    return tables(folder)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["none", "newer", "older", "both"])
def test_a_stopped_run_goes_on_from_the_newest_whole_checkpoint(
    ranked: Path,
    collected: dict[str, list[str]],
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
    damaged: str,
) -> None:
    folder = copy(ranked)
    seen = count_batches(monkeypatch)
    with stopped_after(monkeypatch, 7):
        collect(Study.open(folder), CHOSEN)
    assert len(seen) == 7
    files = sorted(
        (folder / "collection").glob("*/shard-*.checkpoint-*"), key=lambda p: Work.read(p).saved
    )
    older, newer = files
    hit = {"none": [], "newer": [newer], "older": [older], "both": files}[damaged]
    for path in hit:
        damage(path)
    lines: list[str] = []
    collect(Study.open(folder), CHOSEN, tell=lines.append)
    known = {"none": 7, "newer": 6, "older": 7, "both": 0}[damaged]
    unused = [line for line in lines if line.startswith("a checkpoint is not used: ")]
    assert sorted(line.split(": ")[1].split(" is damaged")[0] for line in unused) == sorted(
        map(str, hit)
    )
    assert sum("going on from a checkpoint" in line for line in lines) == bool(known)
    # Nothing that a checkpoint holds is seen again.
    again = seen[7:]
    assert len(again) == len(set(again))
    assert set(seen[:known]).isdisjoint(again)
    assert set(seen[:7]) | set(again) == set(seen)
    assert len(again) + known > 20
    assert tables(folder) == collected
    assert not left_over(folder)


def test_other_features_begin_anew(
    ranked: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the checkpoints lie where those of the new plan would."""
    folder = copy(ranked)
    with stopped_after(monkeypatch, 4):
        collect(Study.open(folder), Selection(sae="first", limit=3))
    (old,) = (folder / "collection").iterdir()
    with stopped_after(monkeypatch, 1):
        collect(Study.open(folder), CHOSEN)
    (new,) = (path for path in (folder / "collection").iterdir() if path != old)
    for path in old.glob("*.checkpoint-*"):
        (new / path.name).write_bytes(path.read_bytes())
    lines: list[str] = []
    found = collect(Study.open(folder), CHOSEN, tell=lines.append)
    assert not any("checkpoint" in line for line in lines)
    assert len(found[0].features) > 3
    assert {row["status"] for row in found[0].rows} != {"chosen"}


def test_a_changed_chunk_size_begins_anew(
    ranked: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    with stopped_after(monkeypatch, 4):
        collect(Study.open(folder), CHOSEN)
    change_setting(folder, "chunk_characters = 3000", "chunk_characters = 4000")
    lines: list[str] = []
    collect(Study.open(folder), CHOSEN, tell=lines.append)
    assert not any("checkpoint" in line for line in lines)


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_loses_one_checkpoint(
    ranked: Path,
    collected: dict[str, list[str]],
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = copy(ranked)
    with stopped_after(monkeypatch, 5):
        collect(Study.open(folder), CHOSEN)
    before = files_below(folder / "collection")
    with monkeypatch.context() as patch:
        FullDisk.left = 20_000
        patch.setattr(_whole, "FileIO", FullDisk)
        with pytest.raises(StorageError, match="No space left") as error:
            collect(Study.open(folder), CHOSEN)
    assert "\n" not in str(error.value)
    assert "run again" in str(error.value)
    assert files_below(folder / "collection") == before
    seen = count_batches(monkeypatch)
    lines: list[str] = []
    collect(Study.open(folder), CHOSEN, tell=lines.append)
    assert any("going on from a checkpoint" in line for line in lines)
    assert seen[0].startswith("batch ")
    assert tables(folder) == collected


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name != "posix", reason="needs limits on a process")
def test_a_file_that_may_not_grow_is_one_line_too(tmp_path: Path) -> None:
    """The system's own error instead of a made one."""
    import resource
    import signal

    checkpoints = Checkpoints(tmp_path, "x")
    work = work_of(40)
    checkpoints.save(work)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(StorageError, match=r"could not write .*: File too large"):
            checkpoints.save(work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(list(tmp_path.iterdir())) == 1
    found, faults = checkpoints.load("plan", "cpu")
    assert found is not None
    assert faults == []
    assert np.array_equal(found.sketches["a"].counts.maximum, work.sketches["a"].counts.maximum)
