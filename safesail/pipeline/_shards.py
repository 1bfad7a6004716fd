"""One collection shared out by hand: every job sees some of the chunks, `merge` joins them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safesail.errors import InputError, StudyConflictError
from safesail.pipeline._collect import (
    Collection,
    carried_out,
    choose,
    collection_of,
    plans_for,
)
from safesail.pipeline._finish import finish, finish_left_over
from safesail.pipeline._joined import joined, shard_files
from safesail.pipeline._lock import taken
from safesail.pipeline._plan import plans
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
from safesail.tables import read_configuration


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
        # Written even where the shard is done: another machine's may have come without it.
        folder, name = plan.write(workspace), shard_name(shard)
        path = folder / f"{name}.work"
        if not path.exists():
            with taken(folder, shard):
                carried_out(workspace, plan, plan.passing(workspace), shard=shard).write(path)
                Checkpoints(folder, name).clear()
        files.append(path)
    return files


def merge_shards(
    study: Study, *, approve: Approve | None = None, tell: Tell = tell_nothing
) -> list[Collection]:
    """Join the shards of every collection whose jobs are done, and write its tables.

    Returns:
        One for each SAE whose tables were written; none where all that was collected with the
        settings of this study is in the tables already.

    Raises:
        InputError: there are no shards; one is missing, there twice, or of another corpus or
            collection.
        StorageError: one is damaged.
        StudyConflictError: one is being made.
        SafesailError: see `safesail.errors`.
    """
    workspace = Workspace(study, False, no_progress, approve, tell)
    merged = finish_left_over(workspace)
    begun = False
    for folder, plan in plans(workspace, tell):
        if not plan.is_current(workspace):
            continue
        files = shard_files(folder)
        begun |= not files
        if files:
            with taken(folder):
                work = joined(files, plan)
                finish(workspace, plan, work, plan.passing(workspace).targets)
            merged.append(plan)
    if not merged and (
        begun or any(study.collection.glob("*/shard-*.work")) or not _has_contexts(workspace)
    ):
        raise InputError(
            f"no shards in {study.collection}/*/ were made with the settings of this study: run "
            "`safesail collect --shard 1/n` to `n/n` first, and copy their *.work files there"
        )
    return [
        collection_of(workspace, name, sae.features)
        for plan in merged
        for name, sae in plan.saes.items()
    ]


def _has_contexts(workspace: Workspace) -> bool:
    """Whether anything was collected with the settings of the study."""
    return any(
        read_configuration(path) == workspace.contexts_settings(path.parent.name)
        for path in workspace.study.folder.glob("contexts/*/part-*.parquet")
    )
