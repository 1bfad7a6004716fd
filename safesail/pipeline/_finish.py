"""From finished work to the study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safesail.errors import StorageError
from safesail.pipeline._lock import held
from safesail.pipeline._plan import Plan, forget, plans
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
    from safesail.contexts import Target, Work

# A feature with this status has no contexts yet.
UNCOLLECTED = "chosen"
_FINISHED = "finished.work"


def finish(workspace: Workspace, plan: Plan, work: Work, targets: Sequence[Target]) -> None:
    """Write the tables of finished work, and forget the work.

    The work is put down first: where writing the tables is interrupted, it is taken up from there.

    Args:
        workspace: the study's.
        plan: of the work.
        work: all of it.
        targets: the plan's SAEs, loaded.

    Raises:
        StorageError: the disk is full or a folder not writable.
    """
    work.write(plan.folder(workspace) / _FINISHED)
    _write_tables(workspace, plan, work, targets)


def _write_tables(workspace: Workspace, plan: Plan, work: Work, targets: Sequence[Target]) -> None:
    with held(workspace.study.folder, wait=True):
        for target in targets:
            name = target.sae.name
            rows = feature_rows(workspace, name)
            # Some may have been collected by another command since the work was begun.
            collected = {row["feature"] for row in rows if row["status"] != UNCOLLECTED}
            features = set(target.features) - collected
            if features:
                _write_contexts(workspace, target, work, plan.saes[name].settings, features)
    forget(plan.folder(workspace))


def _write_contexts(
    workspace: Workspace,
    target: Target,
    work: Work,
    settings: dict[str, Any],
    features: set[int],
) -> None:
    """Write some of a target's features: their contexts first, then that they are there."""
    from safesail.contexts import Contexts

    name, folder = target.sae.name, workspace.study.contexts(target.sae.name)
    found = Contexts.of(target, work.sketches[name], workspace.settings.collection, workspace.model)
    shards = sorted(folder.glob("part-*.parquet"))
    # A shard with features that the features table does not record was left by a crash between
    # the two writes; its features are written again.
    orphans = [path for path in shards if _features_of(path) & features]
    delete(orphans)
    numbers = [int(path.stem.removeprefix("part-")) for path in shards if path not in orphans]
    shard = folder / f"part-{max(numbers, default=-1) + 1:05d}.parquet"
    tables = found.tables()
    if features != set(target.features):
        wanted = pa.array(sorted(features), pa.int64())
        tables = (table.filter(pc.is_in(table["feature"], wanted)) for table in tables)
    write_parts(shard, tables, CONTEXTS, settings)
    rows = feature_rows(workspace, name)
    # Features that no concept chose get a row here, without one.
    unchosen = sorted(features - {row["feature"] for row in rows})
    rows += [{"sae": name, "layer": target.sae.layer, "feature": one} for one in unchosen]
    for row in rows:
        if row["feature"] in features:
            row.update(found.statistics[row["feature"]])
    write_features(workspace, name, rows)


def finish_left_over(workspace: Workspace) -> list[Plan]:
    """Write the tables of work that was finished when its run was killed.

    Where it is damaged, that is told, and the work is done again from its checkpoint.

    Returns:
        The plans of what was written.

    Raises:
        StorageError: as in `finish`.
    """
    from safesail.contexts import Work, shard_name

    written = []
    for folder, plan in plans(workspace):
        path = folder / _FINISHED
        if path.exists() and plan.is_current(workspace):
            with held(folder / shard_name((1, 1)), wait=False) as free:
                if not free:
                    continue
                try:
                    work = Work.read(path)
                except StorageError as error:
                    workspace.tell(f"finished work is not used: {error}")
                    delete([path])
                    continue
                _write_tables(workspace, plan, work, plan.passing(workspace).targets)
                written.append(plan)
    return written


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
