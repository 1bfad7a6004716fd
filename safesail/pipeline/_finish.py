"""From finished work to the study's tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from safesail.pipeline._plan import Plan, plans
from safesail.pipeline._workspace import Workspace, rows_of
from safesail.tables import (
    CONTEXTS,
    FEATURES,
    read_configuration,
    table_from_rows,
    write_parts,
    write_table,
)

if TYPE_CHECKING:
    from safesail.contexts import Work

# A feature with this status has no contexts yet.
UNCOLLECTED = "chosen"
_FINISHED = "finished.work"


def finish(workspace: Workspace, plan: Plan, work: Work) -> None:
    """Write the tables of finished work, and forget the work.

    The work is put down first: where writing the tables is interrupted, it is taken up from there.

    Raises:
        StorageError: the disk is full or a folder not writable.
    """
    from safesail.contexts import Contexts

    folder = plan.folder(workspace)
    work.write(folder / _FINISHED)
    passing = plan.passing(workspace)
    for target in passing.targets:
        name = target.sae.name
        found = Contexts.of(
            target, work.sketches[name], workspace.settings.collection, workspace.model
        )
        shards = sorted(workspace.study.contexts(name).glob("part-*.parquet"))
        # A shard with features that the features table does not record was left by a crash between
        # the two writes; its features are written again.
        orphans = [path for path in shards if _features_of(path) & set(target.features)]
        delete(orphans)
        numbers = [int(path.stem.removeprefix("part-")) for path in shards if path not in orphans]
        number = max(numbers, default=-1) + 1
        shard = workspace.study.contexts(name) / f"part-{number:05d}.parquet"
        write_parts(shard, found.tables(), CONTEXTS, plan.saes[name].settings)
        rows = feature_rows(workspace, name)
        for row in rows:
            row.update(found.statistics.get(row["feature"], {}))
        write_features(workspace, name, rows)
    shutil.rmtree(folder, ignore_errors=True)


def finish_left_over(workspace: Workspace) -> None:
    """Write the tables of work that was finished when its run was killed.

    Raises:
        StorageError: as in `finish`, or the work is damaged.
    """
    from safesail.contexts import Work

    for folder, plan in plans(workspace):
        path = folder / _FINISHED
        if path.exists() and plan.is_current(workspace):
            finish(workspace, plan, Work.read(path))


def feature_rows(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Rows of an SAE's features table, best first within a concept."""
    return rows_of(workspace.study.features(name), FEATURES)


def write_features(workspace: Workspace, name: str, rows: list[dict[str, Any]]) -> None:
    """Write an SAE's features table, which keeps the settings that it has."""
    path = workspace.study.features(name)
    write_table(path, table_from_rows(rows, FEATURES), FEATURES, read_configuration(path) or {})


def delete(paths: list[Path]) -> None:
    """Delete files."""
    for path in paths:
        path.unlink()


def _features_of(shard: Path) -> set[int]:
    return set(pq.read_table(shard, columns=["feature"])["feature"].to_pylist())
