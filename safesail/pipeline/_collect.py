"""The stage `collect` on a study's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import CandidateError
from safesail.pipeline._rank import rank_in
from safesail.pipeline._selection import Selection, select_features
from safesail.pipeline._workspace import Approve, Progress, Workspace, no_progress
from safesail.study import Study
from safesail.tables import (
    CONTEXTS,
    FEATURES,
    Context,
    read_configuration,
    read_contexts,
    read_table,
    table_from_rows,
    write_table,
)

if TYPE_CHECKING:
    import pandas as pd


# A feature with this status has no contexts yet.
_UNCOLLECTED = "chosen"


@dataclass(frozen=True)
class Collection:
    """Result of the stage `collect`.

    Attributes:
        sae: the SAE.
        layer: its layer.
        features: the selected features, best first.
        rows: their rows of the features table.
        folder: where the context shards lie.
    """

    sae: str
    layer: int
    features: list[int]
    rows: list[dict[str, Any]]
    folder: Path

    def contexts(self) -> dict[int, list[Context]]:
        """The selected features' contexts."""
        return read_contexts(self.folder, self.features)

    def to_pandas(self) -> pd.DataFrame:
        """The selected features' rows of the contexts table."""
        rows = [vars(context) for found in self.contexts().values() for context in found]
        return table_from_rows(rows, CONTEXTS).to_pandas()


def collect(
    study: Study,
    selection: Selection | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
    approve: Approve | None = None,
) -> Collection:
    """Collect statistics and contexts of the chosen features of one SAE, ranking first if needed.

    Writes a new shard in `contexts/<sae>/` for the features that lack one, and their statistics
    into `features/<sae>.parquet`.

    Args:
        study: the study.
        selection: which SAE (by default the best ranked), concepts, how many features.
        overwrite: discard results that other settings made, instead of refusing to go on.
        progress: wraps an iterable with a label.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    workspace = Workspace(study, overwrite, progress, approve)
    return collect_in(workspace, selection or Selection())


def collect_in(workspace: Workspace, selection: Selection) -> Collection:
    """The stage, for stages that come after it in the same command."""
    ranking = rank_in(workspace, selection)
    name = selection.sae or ranking.best(selection.layer, by=selection.concepts)
    rows = ranking.features.get(name)
    if not rows:
        raise CandidateError(
            f"no feature was chosen for SAE {name!r}; ranked: {', '.join(ranking.order())}"
        )
    if selection.layer not in (None, rows[0]["layer"]):
        raise CandidateError(f"SAE {name!r} is at layer {rows[0]['layer']}, not {selection.layer}")
    settings = workspace.contexts_settings(name)
    folder = workspace.study.contexts(name)
    shards = sorted(folder.glob("part-*.parquet"))
    if not shards or not workspace.still_valid(shards[0], settings):
        rows = _forget(workspace, name, rows)
        _delete(shards)
        shards = []
    features = select_features(rows, workspace.concepts.select(selection.concepts), selection.limit)
    if not features:
        raise CandidateError(
            f"no feature of {name} was chosen for {', '.join(selection.concepts)}: none is called "
            "at the false discovery rate; give more pairs or raise ranking.false_discovery_rate"
        )
    by_feature = {row["feature"]: row for row in rows}
    missing = {
        feature: by_feature[feature]["q999"]
        for feature in features
        if by_feature[feature]["status"] == _UNCOLLECTED
    }
    if missing:
        _collect_missing(workspace, name, rows, missing, shards, settings)
    selected = set(features)
    rows = [row for row in rows if row["feature"] in selected]
    return Collection(name, rows[0]["layer"], features, rows, folder)


def _collect_missing(
    workspace: Workspace,
    name: str,
    rows: list[dict[str, Any]],
    missing: dict[int, float],
    shards: list[Path],
    settings: dict[str, Any],
) -> None:
    """Collect features that have no contexts yet; updates `rows` with their statistics."""
    from safesail.contexts import collect_contexts
    from safesail.ranking import tokenize_corpus

    sae = workspace.load_sae(name)
    texts = tokenize_corpus(
        workspace.model, workspace.corpus, workspace.settings.corpus.max_tokens, sae
    )
    found = collect_contexts(
        workspace.model,
        sae,
        missing,
        texts,
        workspace.sample_of(texts),
        workspace.settings.collection,
        progress=workspace.progress,
    )
    # A shard with features that the features table does not record was left by a crash between
    # the two writes; its features are among the missing and stand in the new shard.
    orphans = [path for path in shards if missing.keys() & _features_of(path)]
    _delete(orphans)
    numbers = [int(path.stem.removeprefix("part-")) for path in shards if path not in orphans]
    shard = workspace.study.contexts(name) / f"part-{max(numbers, default=-1) + 1:05d}.parquet"
    write_table(shard, found.table, CONTEXTS, settings)
    for row in rows:
        row.update(found.statistics.get(row["feature"], {}))
    _write_features(workspace, name, rows)


def _forget(workspace: Workspace, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Record that no feature has contexts, before the shards go: a crash in between is harmless."""
    if all(row["status"] == _UNCOLLECTED for row in rows):
        return rows
    rows = [{**row, "status": _UNCOLLECTED} for row in rows]
    _write_features(workspace, name, rows)
    return rows


def _write_features(workspace: Workspace, name: str, rows: list[dict[str, Any]]) -> None:
    path = workspace.study.features(name)
    write_table(path, table_from_rows(rows, FEATURES), FEATURES, read_configuration(path) or {})


def _features_of(shard: Path) -> set[int]:
    return set(read_table(shard, CONTEXTS)["feature"].to_pylist())


def _delete(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()
