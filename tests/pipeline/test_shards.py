"""Collections shared out between jobs, SAEs that share a pass, and work that a crash left over."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collected import count_batches, left_over, make_ranked, stopped_after, tables
from pipeline.test_pipeline import forbid_work
from study_folder import change_setting, copy_study, statuses, with_contexts

from safesail.contexts import Checkpoints, Work
from safesail.errors import InputError, StorageError, StudyConflictError
from safesail.pipeline import (
    Selection,
    collect,
    collect_shard,
    explain,
    load_results,
    merge_shards,
    rank,
)
from safesail.pipeline import _finish as finishing
from safesail.pipeline import _plan as planning
from safesail.pipeline._collect import choose, plans_for
from safesail.pipeline._lock import held, taken
from safesail.pipeline._workspace import Workspace, no_progress
from safesail.study import Study

Copy = Callable[[Path], Path]
FIRST = Selection(sae="first")
ALL = [Selection(sae=name) for name in ("first", "second", "upper")]


@pytest.fixture(scope="module")
def ranked(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ranked(fresh, tmp_path_factory.mktemp("shards") / "study")


@pytest.fixture(scope="module")
def local(ranked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collected by one run."""
    folder = copy_study(ranked, tmp_path_factory.mktemp("local") / "study")
    collect(Study.open(folder), FIRST)
    return folder


@pytest.fixture(scope="module")
def sharded(ranked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three shards done, not merged; not to be changed."""
    folder = copy_study(ranked, tmp_path_factory.mktemp("sharded") / "study")
    for number in (1, 2, 3):
        collect_shard(Study.open(folder), [FIRST], (number, 3))
    return folder


def shard_files(study: Path) -> list[Path]:
    return sorted((study / "collection").glob("*/*.work"))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_shards_in_any_order_are_the_local_run(
    ranked: Path,
    local: Path,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[int, ...],
) -> None:
    folder = copy(ranked)
    study = Study.open(folder)
    seen = count_batches(monkeypatch)
    chunks: list[set[str]] = []
    for number in order:
        begun = len(seen)
        (path,) = collect_shard(study, [FIRST], (number, 3))
        chunks.append({where.split(" of ")[1] for where in seen[begun:]})
        assert path.name == f"shard-{number}-of-3.work"
        assert shard_files(folder)[-1].parent == path.parent
        # Nothing else is kept of a shard that is done.
        assert not list(path.parent.glob("*.checkpoint-*"))
        assert not with_contexts_folder(folder)
    assert all(len(mine) >= 2 for mine in chunks)
    assert len(set.union(*chunks)) == sum(map(len, chunks))
    merged = merge_shards(study)
    assert [(one.sae, set(one.features)) for one in merged] == [
        ("first", set(statuses(local, "first")))
    ]
    assert tables(folder) == tables(local)
    assert not left_over(folder)
    assert not (folder / "collection").exists()
    forbid_work(monkeypatch)
    (found,) = collect(study, FIRST)
    assert {row["status"] for row in found.rows} <= {"collected", "too_few_contexts", "dead"}
    assert collect_shard(study, [FIRST], (1, 3)) == []
    # Nothing is left to merge, which is no error.
    assert merge_shards(study) == []
    change_setting(folder, "per_level = 2", "per_level = 1")
    with pytest.raises(InputError, match=r"no shards in .*run `safesail collect --shard 1/n`"):
        merge_shards(Study.open(folder))


def with_contexts_folder(study: Path) -> list[Path]:
    return list((study / "contexts").glob("*"))


def test_several_saes_are_shared_out_together(ranked: Path, copy: Copy, tmp_path: Path) -> None:
    """Two passes, of which each has its shards."""
    alone = copy_study(ranked, tmp_path / "alone")
    for selection in ALL:
        collect(Study.open(alone), selection)
    folder = copy(ranked)
    for number in (2, 1):
        files = collect_shard(Study.open(folder), ALL, (number, 2))
        assert len(files) == 2
    assert {one.sae for one in merge_shards(Study.open(folder))} == {"first", "second", "upper"}
    assert tables(folder) == tables(alone)
    assert not left_over(folder)


def test_more_shards_than_chunks(ranked: Path, local: Path, copy: Copy) -> None:
    folder = copy(ranked)
    (some,) = collect_shard(Study.open(folder), [FIRST], (1, 12))
    chunks = Work.read(some).chunks
    assert 3 < chunks < 12
    for number in range(2, 13):
        (path,) = collect_shard(Study.open(folder), [FIRST], (number, 12))
        assert Work.read(path).done == ({number - 1} if number <= chunks else set())
    merge_shards(Study.open(folder))
    assert tables(folder) == tables(local)


def test_a_stopped_shard_goes_on(
    ranked: Path, local: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    seen = count_batches(monkeypatch)
    for number in (1, 2, 3):
        with stopped_after(monkeypatch, 4):
            collect_shard(Study.open(folder), [FIRST], (number, 3))
        lines: list[str] = []
        with pytest.raises(InputError, match=r"no shards|lacks shard"):
            merge_shards(Study.open(folder))
        begun = len(seen)
        collect_shard(Study.open(folder), [FIRST], (number, 3), tell=lines.append)
        assert any("going on from a checkpoint" in line for line in lines)
        assert set(seen[begun - 4 : begun]).isdisjoint(seen[begun:])
        # What is done is not done again.
        begun = len(seen)
        collect_shard(Study.open(folder), [FIRST], (number, 3))
        assert len(seen) == begun
    merge_shards(Study.open(folder))
    assert tables(folder) == tables(local)


def test_shards_from_several_machines(ranked: Path, local: Path, tmp_path: Path) -> None:
    """Each has a copy of the study; their files are brought together under the same path."""
    home = copy_study(ranked, tmp_path / "home")
    for number in (1, 2, 3):
        away = copy_study(ranked, tmp_path / f"away{number}")
        (path,) = collect_shard(Study.open(away), [FIRST], (number, 3))
        shutil.copytree(path.parent, home / path.parent.relative_to(away), dirs_exist_ok=True)
        shutil.rmtree(away)
    merge_shards(Study.open(home))
    assert tables(home) == tables(local)


def test_shards_without_their_plan_are_told_and_kept(
    sharded: Path, local: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(sharded)
    (plan,) = (folder / "collection").glob("*/plan.json")
    whole = plan.read_bytes()
    for content in (None, b"{}", whole[:-5]):
        plan.unlink() if content is None else plan.write_bytes(content)
        lines: list[str] = []
        with pytest.raises(InputError, match="no shards in"):
            merge_shards(Study.open(folder), tell=lines.append)
        (line,) = lines
        assert line.startswith(f"not used: {plan} is damaged or missing: copy it there")
        assert "repeat the command that began it" in line
        assert len(shard_files(folder)) == 3
        # Another collection says so too.
        lines = []
        with stopped_after(monkeypatch, 1):
            collect(Study.open(folder), Selection(sae="first", limit=2), tell=lines.append)
        assert line in lines
    seen = count_batches(monkeypatch)
    collect_shard(Study.open(folder), [FIRST], (2, 3))
    assert plan.read_bytes() == whole
    assert merge_shards(Study.open(folder))
    assert seen == []
    assert tables(folder) == tables(local)


def test_a_plan_about_to_be_written_is_left_alone(ranked: Path, copy: Copy) -> None:
    """Jobs start together: one makes its folder while another looks for work left over."""
    folder = copy(ranked)
    other = folder / "collection" / "0123456789abcdef"
    other.mkdir(parents=True)
    collect_shard(Study.open(folder), [FIRST], (1, 3))
    assert other.exists()


def break_missing(study: Path) -> None:
    shard_files(study)[1].unlink()


def break_twice(study: Path) -> None:
    first = shard_files(study)[0]
    shutil.copy(first, first.with_name("shard-7-of-3.work"))


def break_in_the_place_of_another(study: Path) -> None:
    first, second, _ = shard_files(study)
    shutil.copy(first, second)


def break_bit(study: Path) -> None:
    path = shard_files(study)[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def break_cut(study: Path) -> None:
    path = shard_files(study)[1]
    path.write_bytes(path.read_bytes()[:-1])


def break_other_count(study: Path) -> None:
    collect_shard(Study.open(study), [FIRST], (1, 2))


def break_other_plan(study: Path) -> None:
    path = shard_files(study)[2]
    work = Work.read(path)
    work.plan = "another"
    work.write(path)


def break_other_corpus(study: Path) -> None:
    """As where a corpus on the hub changed, which has no files to tell it by."""
    path = shard_files(study)[2]
    work = Work.read(path)
    work.chunks += 1
    work.write(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_missing, r"lacks shard 2 of 3: run `safesail collect --shard 2/3`"),
        (break_twice, r"shard-7-of-3\.work and shard-1-of-3\.work are both shard 1 of 3"),
        (break_in_the_place_of_another, r"shard-2-of-3\.work and shard-1-of-3\.work are both"),
        (break_bit, r"shard-2-of-3\.work is damaged .*: delete it and do that shard again"),
        (break_cut, r"shard-2-of-3\.work is damaged .*: delete it and do that shard again"),
        (break_other_count, r"another number of shards, than .*chunks in 3 shards against"),
        (break_other_plan, r"shard-3-of-3\.work belongs to another collection"),
        (break_other_corpus, r"shard-3-of-3\.work was made of another corpus"),
    ],
)
def test_bad_shards_are_named_and_nothing_is_written(
    sharded: Path, copy: Copy, spoil: Callable[[Path], None], message: str
) -> None:
    folder = copy(sharded)
    spoil(folder)
    files = {path: path.read_bytes() for path in shard_files(folder)}
    with pytest.raises((InputError, StorageError), match=message) as error:
        merge_shards(Study.open(folder))
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in shard_files(folder)} == files
    assert not with_contexts_folder(folder)
    assert set(statuses(folder, "first").values()) == {"chosen"}


def test_of_many_missing_shards_some_are_named(ranked: Path, copy: Copy) -> None:
    folder = copy(ranked)
    collect_shard(Study.open(folder), [FIRST], (2, 1_000_000))
    with pytest.raises(
        InputError, match=r"lacks shard 1, 3, .*, 20, 21 \.\.\. of 1000000"
    ) as error:
        merge_shards(Study.open(folder))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("spoil", [break_missing, break_bit, break_cut])
def test_what_is_named_can_be_mended(
    sharded: Path, local: Path, copy: Copy, spoil: Callable[[Path], None]
) -> None:
    folder = copy(sharded)
    spoil(folder)
    for path in shard_files(folder):
        if path.name == "shard-2-of-3.work":
            path.unlink()
    collect_shard(Study.open(folder), [FIRST], (2, 3))
    merge_shards(Study.open(folder))
    assert tables(folder) == tables(local)


@pytest.mark.parametrize("change", ["setting", "chunks", "corpus", "features"])
def test_shards_of_other_settings_are_not_joined(ranked: Path, copy: Copy, change: str) -> None:
    folder = copy(ranked)
    collect_shard(Study.open(folder), [FIRST], (1, 3))
    selection = FIRST
    if change == "setting":
        change_setting(folder, "per_level = 2", "per_level = 3")
    elif change == "chunks":
        change_setting(folder, "chunk_characters = 3000", "chunk_characters = 5000")
    elif change == "corpus":
        with (folder / "corpus.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
        rank(Study.open(folder), overwrite=True)
    else:
        selection = Selection(sae="first", limit=3)
    for number in (2, 3):
        collect_shard(Study.open(folder), [selection], (number, 3))
    with pytest.raises(InputError, match="lacks shard "):
        merge_shards(Study.open(folder))
    assert not with_contexts_folder(folder)


def test_shards_need_a_ranking(fresh: Path, copy: Copy) -> None:
    folder = copy(fresh)
    with pytest.raises(StudyConflictError, match=r"has no ranking.*run `safesail rank-saes` once"):
        collect_shard(Study.open(folder), [FIRST], (1, 3))
    assert not list(folder.glob("collection*"))
    with pytest.raises(InputError, match="no shards in"):
        merge_shards(Study.open(folder))


@pytest.mark.parametrize("before", ["fewer", "more", "the same"])
def test_what_was_collected_meanwhile_is_kept(
    sharded: Path, local: Path, ranked: Path, copy: Copy, before: str
) -> None:
    """Shards wait; meanwhile another command collects features of the same SAE."""
    if before == "more":
        folder = copy(ranked)
        for number in (1, 2):
            collect_shard(Study.open(folder), [Selection(sae="first", limit=3)], (number, 2))
        collect(Study.open(folder), FIRST)
    else:
        folder = copy(sharded)
        limit = 3 if before == "fewer" else None
        collect(Study.open(folder), Selection(sae="first", limit=limit))
    merged = merge_shards(Study.open(folder))
    # Of the same plan, the shards were all done, and used.
    assert bool(merged) == (before != "the same")
    assert_same(folder, local)
    assert not left_over(folder)


KEYS = ("feature", "split", "kind", "level", "sample", "document", "start")


def contexts_of(study: Path) -> dict[tuple[Any, ...], list[float]]:
    """All context files together: which contexts, and weight and activations of each."""
    rows = load_results(Study.open(study), "contexts", "first").to_pylist()
    found = {tuple(row[key] for key in KEYS): [row["weight"], *row["activations"]] for row in rows}
    assert len(found) == len(rows) > 100
    return found


def assert_same(study: Path, expected: Path) -> None:
    """The same contexts, each once.

    Activations differ in the last digits by a feature's company, and so do near ties among peaks.
    """
    mine, known = contexts_of(study), contexts_of(expected)
    assert Counter(key[:5] for key in mine) == Counter(key[:5] for key in known)
    shared = mine.keys() & known.keys()
    assert len(shared) > 0.95 * len(known)
    for key in shared:
        assert mine[key] == pytest.approx(known[key], abs=1e-5, nan_ok=True)
    assert statuses(study, "first") == statuses(expected, "first")


def test_two_collections_of_shared_features_are_merged_in_either_order(
    ranked: Path, local: Path, copy: Copy
) -> None:
    folder = copy(ranked)
    for selection in (FIRST, Selection(sae="first", limit=3), Selection(sae="first", limit=5)):
        for number in (1, 2):
            collect_shard(Study.open(folder), [selection], (number, 2))
    assert len(shard_files(folder)) == 6
    merge_shards(Study.open(folder))
    assert_same(folder, local)
    assert not left_over(folder)


# Several SAEs.


def same_reading(study: Path, sae: str = "upper", **changes: Any) -> None:
    """Change an SAE's training metadata, before anything is ranked."""
    path = study / "saes" / sae / "cfg.json"
    configuration = json.loads(path.read_text())
    configuration["metadata"].update(changes)
    path.write_text(json.dumps(configuration))


@pytest.mark.parametrize(
    ("changes", "passes"),
    [({"context_size": 64}, 1), ({}, 2), ({"context_size": 64, "prepend_bos": False}, 2)],
)
def test_layers_collected_together_are_those_collected_alone(
    fresh: Path,
    copy: Copy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    passes: int,
) -> None:
    base = copy_study(fresh, tmp_path / "base")
    same_reading(base, **changes)
    make_ranked(base, tmp_path / "ranked")
    alone = copy_study(tmp_path / "ranked", tmp_path / "alone")
    layers = [Selection(layer=layer) for layer in (1, 2)]
    for selection in layers:
        collect(Study.open(alone), selection)
    folder = copy(tmp_path / "ranked")
    seen = count_batches(monkeypatch)
    lines: list[str] = []
    found = collect(Study.open(folder), layers, tell=lines.append)
    assert [one.layer for one in found] == [1, 2]
    assert sum("tokens a batch" in line for line in lines) == passes
    assert (len(seen) == len(set(seen))) == (passes == 1)
    assert tables(folder) == tables(alone)
    assert not left_over(folder)
    for one in found:
        assert set(one.features) == set(with_contexts(folder, one.sae)) | {
            f for f, status in statuses(folder, one.sae).items() if status == "dead"
        }


def test_one_sae_asked_twice_is_collected_once(
    ranked: Path, local: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    seen = count_batches(monkeypatch)
    few, all_of_them = collect(Study.open(folder), [Selection(sae="first", limit=2), FIRST])
    assert len(seen) == len(set(seen))
    assert len(few.features) == 2 < len(all_of_them.features)
    assert tables(folder) == tables(local)


# Finished work that a crash left over.


class Crash(BaseException):
    """A run that ends between two writes."""


@contextlib.contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int = 1) -> Iterator:
    """The run within ends where this is called for the first time, or for a later one."""
    function = getattr(owner, name)
    left = [calls]

    def crash(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise Crash
        return function(*given, **named)

    crashed = False
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        try:
            yield
        except Crash:
            crashed = True
    assert crashed


@pytest.fixture(params=["contexts", "features", "forget", "half deleted"])
def crashed(
    request: pytest.FixtureRequest, ranked: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A study whose run ended after the pass: before a write, or while its work was deleted."""
    folder = copy(ranked)
    owner, name = {
        "contexts": (finishing, "write_parts"),
        "features": (finishing, "write_features"),
        "forget": (finishing, "forget"),
        "half deleted": (planning, "_delete"),
    }[request.param]
    with crashing(monkeypatch, owner, name):
        collect(Study.open(folder), FIRST)
    if request.param == "half deleted":
        next((folder / "collection").glob("*/plan.json")).unlink()
    return folder


def test_finished_work_is_written_without_the_model_reading_again(
    crashed: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list((crashed / "collection").iterdir())
    forbid_work(monkeypatch)
    seen = count_batches(monkeypatch)
    (found,) = collect(Study.open(crashed), FIRST)
    assert seen == []
    assert {row["status"] for row in found.rows} <= {"collected", "too_few_contexts", "dead"}
    assert tables(crashed) == tables(local)
    assert not left_over(crashed)


@pytest.mark.parametrize(("owner", "name"), [(finishing, "write_features"), (planning, "_delete")])
def test_a_merge_that_ended_in_the_middle_is_ended_by_the_next(
    sharded: Path,
    local: Path,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
) -> None:
    folder = copy(sharded)
    with crashing(monkeypatch, owner, name):
        merge_shards(Study.open(folder))
    merged = merge_shards(Study.open(folder))
    # Where only the work was not deleted, nothing is left to merge.
    assert [one.sae for one in merged] == (["first"] if owner is finishing else [])
    assert tables(folder) == tables(local)
    assert not left_over(folder)


def test_finished_work_of_several_saes_is_written_once(
    fresh: Path, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the first SAE's tables and the second's."""
    folder = make_ranked(fresh, tmp_path / "ranked")
    both = ALL[:2]
    whole = copy(folder)
    collect(Study.open(whole), both)
    with crashing(monkeypatch, finishing, "write_features", calls=2):
        collect(Study.open(folder), both)
    # The second one's contexts lie there too, but are not recorded: they are written again.
    (done,) = (s.sae for s in both if s.sae and "chosen" not in statuses(folder, s.sae).values())
    (shard,) = (folder / "contexts" / done).iterdir()
    before = shard.stat().st_mtime_ns
    forbid_work(monkeypatch)
    collect(Study.open(folder), both)
    assert shard.stat().st_mtime_ns == before
    assert tables(folder) == tables(whole)


def test_damaged_finished_work_is_told_and_done_again_from_its_checkpoint(
    ranked: Path, local: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    with crashing(monkeypatch, finishing, "write_parts"):
        collect(Study.open(folder), FIRST)
    (finished,) = (folder / "collection").glob("*/finished.work")
    finished.write_bytes(finished.read_bytes()[:-7])
    lines: list[str] = []
    seen = count_batches(monkeypatch)
    collect(Study.open(folder), FIRST, tell=lines.append)
    assert lines[0].startswith(f"finished work is not used: {finished} is damaged")
    assert any("going on from a checkpoint" in line for line in lines)
    assert seen == []
    assert tables(folder) == tables(local)


def test_finished_work_of_other_settings_is_not_written(
    ranked: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    with crashing(monkeypatch, finishing, "write_parts"):
        collect(Study.open(folder), FIRST)
    change_setting(folder, "per_level = 2", "per_level = 1")
    seen = count_batches(monkeypatch)
    collect(Study.open(folder), FIRST)
    assert seen
    drawn = Counter(key[:5] for key in contexts_of(folder) if key[4] == "random" and key[3])
    assert max(drawn.values()) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_what_a_kill_left_half_written_beside_the_contexts_goes(
    ranked: Path, local: Path, copy: Copy
) -> None:
    folder = copy(ranked)
    half = folder / "contexts" / "first" / ".part-00000.parquet.abc"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    collect(Study.open(folder), FIRST)
    assert tables(folder) == tables(local)
    assert not left_over(folder)


def test_a_second_process_does_not_do_the_same(ranked: Path, copy: Copy, local: Path) -> None:
    folder = copy(ranked)
    study = Study.open(folder)
    workspace = Workspace(study, False, no_progress)
    (plan,) = plans_for(workspace, [choose(workspace, FIRST)])
    with taken(plan.folder(workspace)):
        with pytest.raises(StudyConflictError, match="another process collects the same, or a sh"):
            collect(study, FIRST)
        # What all is done of is deleted with it in the end.
        with pytest.raises(StudyConflictError, match="another process collects the same, not in"):
            collect_shard(study, [FIRST], (1, 3))
    with taken(plan.folder(workspace), (1, 3)):
        with pytest.raises(StudyConflictError, match="another process collects the same shard"):
            collect_shard(study, [FIRST], (1, 3))
        # Another part of the work is nobody else's.
        assert collect_shard(study, [FIRST], (2, 3))
    for number in (1, 3):
        collect_shard(study, [FIRST], (number, 3))
    with taken(plan.folder(workspace), (4, 4)):
        for command in (lambda: collect(study, FIRST), lambda: merge_shards(study)):
            with pytest.raises(StudyConflictError, match=r"or a shard of it, into .*: wait until"):
                command()
    assert len(shard_files(folder)) == 3
    merge_shards(study)
    assert tables(folder) == tables(local)


@pytest.mark.parametrize("left", ["done", "begun"])
def test_a_plain_run_loses_no_shards_of_others(
    ranked: Path, local: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Nobody works on them at the moment."""
    folder = copy(ranked)
    study = Study.open(folder)
    with contextlib.ExitStack() as stack:
        if left == "begun":
            stack.enter_context(stopped_after(monkeypatch, 4))
        collect_shard(study, [FIRST], (2, 3))
    before = {path: path.read_bytes() for path in (folder / "collection").glob("*/*.*")}
    assert len(before) == (2 if left == "done" else 3)
    done, rest = ("1", "1/3") if left == "done" else ("0", "1/3")
    seen = count_batches(monkeypatch)
    for command in (lambda: collect(study, FIRST), lambda: explain(study, FIRST)):
        with pytest.raises(
            StudyConflictError, match=f"{done} of 3 done: .*--shard {rest}"
        ) as error:
            command()
        assert "\n" not in str(error.value)
        assert str(folder / "collection") in str(error.value)
    assert seen == []
    assert {path: path.read_bytes() for path in before} == before
    # What the line says can be done: the rest, or all anew.
    for number in (1, 2, 3):
        collect_shard(study, [FIRST], (number, 3))
    merge_shards(study)
    assert tables(folder) == tables(local)


@pytest.mark.parametrize("after", ["alone", "beside an older run's checkpoint"])
def test_a_plain_run_uses_shards_that_are_all_done(
    ranked: Path,
    sharded: Path,
    local: Path,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
    after: str,
) -> None:
    folder = copy(sharded)
    if after != "alone":
        other = copy_study(ranked, folder.parent / "other")
        with stopped_after(monkeypatch, 3):
            collect(Study.open(other), FIRST)
        for path in (other / "collection").glob("*/*.checkpoint-*"):
            shutil.copy(path, shard_files(folder)[0].parent)
    seen = count_batches(monkeypatch)
    lines: list[str] = []
    collect(Study.open(folder), FIRST, tell=lines.append)
    assert seen == []
    assert any("all shards in " in line for line in lines)
    assert tables(folder) == tables(local)
    assert not left_over(folder)


def test_a_plain_run_does_not_pass_over_a_damaged_shard(sharded: Path, copy: Copy) -> None:
    folder = copy(sharded)
    break_bit(folder)
    with pytest.raises(StorageError, match=r"is damaged .*: delete it and do that shard again"):
        collect(Study.open(folder), FIRST)
    assert len(shard_files(folder)) == 3


def test_tables_are_written_by_one_process_at_a_time(ranked: Path, copy: Copy, local: Path) -> None:
    folder = copy(ranked)
    done: list[Any] = []
    with held(folder, wait=True):
        thread = threading.Thread(target=lambda: done.append(collect(Study.open(folder), FIRST)))
        thread.start()
        finished = folder / "collection"
        while not list(finished.glob("*/finished.work")):
            assert thread.is_alive()
            time.sleep(0.01)
        time.sleep(0.3)
        assert not list((folder / "contexts").glob("*/part-*"))
    thread.join()
    assert done
    assert tables(folder) == tables(local)


def test_a_corpus_that_changes_while_it_is_read_gives_no_tables(
    ranked: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(ranked)
    save = Checkpoints.save

    def changed(self: Checkpoints, work: Work) -> None:
        save(self, work)
        with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"text": "one more"}\n')

    monkeypatch.setattr(Checkpoints, "save", changed)
    message = "the corpus changed while it was read.*`safesail rank-saes --overwrite`, and collect"
    with pytest.raises(InputError, match=message):
        collect(Study.open(folder), FIRST)
    assert not list((folder / "contexts").glob("*/part-*"))
    # What the line says leads on.
    monkeypatch.undo()
    rank(Study.open(folder), overwrite=True)
    (found,) = collect(Study.open(folder), FIRST)
    assert "collected" in {row["status"] for row in found.rows}
