"""One collection shared out by hand: every job sees some of the chunks, `merge` joins them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safesail.errors import InputError, StorageError, StudyConflictError
from safesail.pipeline._collect import (
    Collection,
    carried_out,
    choose,
    collection_of,
    plans_for,
)
from safesail.pipeline._finish import finish, finish_left_over
from safesail.pipeline._plan import Plan, plans
from safesail.pipeline._selection import Selection
from safesail.pipeline._workspace import (
    Approve,
    Progress,
    Tell,
    Workspace,
    no_progress,
    tell_nothing,
)
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.contexts import Work


def collect_shard(
    study: Study,
    selections: Sequence[Selection],
    shard: tuple[int, int],
    *,
    progress: Progress = no_progress,
    approve: Approve | None = None,
    tell: Tell = tell_nothing,
) -> list[Path]:
    """Do one part of a collection, for a job of a batch scheduler.

    Args:
        study: the study, with its ranking.
        selections: as in `collect`; the same in every job.
        shard: number, from 1, and count.
        progress: wraps an iterable with a label.
        approve: as in `collect`.
        tell: is given lines for people.

    Returns:
        The files that `merge_shards` needs, in `collection/<plan>/`; none where all features have
        contexts already.

    Raises:
        StudyConflictError: the study has no ranking yet.
        SafesailError: see `safesail.errors`.
    """
    from safesail.contexts import Checkpoints, shard_name

    if not study.rankings.exists():
        raise StudyConflictError(
            f"{study.folder} has no ranking, which every shard needs: run `safesail rank-saes` "
            "once, before the jobs start"
        )
    workspace = Workspace(study, False, progress, approve, tell)
    files = []
    for plan in plans_for(workspace, [choose(workspace, one) for one in selections]):
        folder, name = plan.folder(workspace), shard_name(shard)
        path = folder / f"{name}.work"
        if not path.exists():
            with carried_out(workspace, plan, shard=shard) as (work, _):
                work.write(path)
                Checkpoints(folder, name).clear()
        files.append(path)
    return files


def merge_shards(
    study: Study, *, approve: Approve | None = None, tell: Tell = tell_nothing
) -> list[Collection]:
    """Join the shards of every collection whose jobs are done, and write its tables.

    Raises:
        InputError: there are no shards; one is missing, there twice, or of another corpus or
            collection.
        StorageError: one is damaged.
        SafesailError: see `safesail.errors`.
    """
    workspace = Workspace(study, False, no_progress, approve, tell)
    finish_left_over(workspace)
    found = []
    for folder, plan in plans(workspace, tell):
        files = sorted(folder.glob("shard-*.work"))
        if files and plan.is_current(workspace):
            work = _joined(files, plan)
            finish(workspace, plan, work, plan.passing(workspace).targets)
            found += [
                collection_of(workspace, name, sae.features) for name, sae in plan.saes.items()
            ]
    if not found:
        raise InputError(
            f"no shards in {study.collection}/*/ were made with the settings of this study: run "
            "`safesail collect --shard 1/n` to `n/n` first, and copy their *.work files there"
        )
    return found


def _joined(files: Sequence[Path], plan: Plan) -> Work:
    """The shards as one; each is read, and held, only while it is taken in."""
    from safesail.contexts import Work

    joined: Work | None = None
    names: dict[tuple[int, int], Path] = {}
    for path in files:
        try:
            work = Work.read(path)
        except StorageError as error:
            raise StorageError(f"{error}: delete it and do that shard again") from error
        if work.plan != plan.digest:
            raise InputError(f"{path} belongs to another collection: move it away")
        if work.shard in names:
            number, count = work.shard
            raise InputError(
                f"{path} and {names[work.shard].name} are both shard {number} of {count}: "
                "remove one"
            )
        names[work.shard] = path
        if joined is None:
            joined = work
        elif (work.chunks, work.shard[1]) != (joined.chunks, joined.shard[1]):
            raise InputError(
                f"{path} was made of another corpus, or for another number of shards, than "
                f"{files[0].name}: {work.chunks} chunks in {work.shard[1]} shards against "
                f"{joined.chunks} in {joined.shard[1]}; remove what is old"
            )
        else:
            joined.merge(work)
    assert joined is not None  # there are files
    count = joined.shard[1]
    missing = [number for number in range(1, count + 1) if (number, count) not in names]
    if missing:
        raise InputError(
            f"{files[0].parent} lacks shard {', '.join(map(str, missing))} of {count}: run "
            f"`safesail collect --shard {missing[0]}/{count}` with the options of the others, or "
            "copy its *.work file there"
        )
    joined.shard = (1, 1)
    return joined
