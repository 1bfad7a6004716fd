"""The stage `collect` on a study's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import CandidateError, InputError, StudyConflictError
from safesail.pipeline._finish import (
    UNCOLLECTED,
    delete,
    feature_rows,
    finish,
    finish_left_over,
    write_features,
)
from safesail.pipeline._joined import finished_by_shards
from safesail.pipeline._lock import taken
from safesail.pipeline._plan import Plan, PlannedSae, plans
from safesail.pipeline._rank import rank_in
from safesail.pipeline._selection import Selection, select_features
from safesail.pipeline._workspace import (
    Approve,
    Progress,
    Tell,
    Workspace,
    no_progress,
    rows_of,
    tell_nothing,
)
from safesail.study import Study
from safesail.tables import CONTEXTS, RANKINGS, Context, read_contexts, table_from_rows

if TYPE_CHECKING:
    import pandas as pd

    from safesail.contexts import Engine, Pass, Work
    from safesail.reading import Reading


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
    selections: Selection | Sequence[Selection] = (),
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
    approve: Approve | None = None,
    tell: Tell = tell_nothing,
) -> list[Collection]:
    """Collect statistics and contexts of chosen features, ranking first if needed.

    SAEs that read texts alike share one pass of the model. Writes a new shard in `contexts/<sae>/`
    for the features that lack one, and their statistics into `features/<sae>.parquet`; while it
    runs, checkpoints into `collection/`, from which it goes on when it is run again.

    Args:
        study: the study.
        selections: which SAE (by default the best ranked), concepts, how many features, or which
            features; several collect from several SAEs.
        engine: where the work is done; in this process by default.
        overwrite: discard results that other settings made, instead of refusing to go on.
        progress: wraps an iterable with a label.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.
        tell: is given lines for people.

    Returns:
        One for each selection.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    if isinstance(selections, Selection):
        selections = [selections]
    workspace = Workspace(study, overwrite, progress, approve, tell)
    return collect_in(workspace, selections or [Selection()], engine)


def collect_in(
    workspace: Workspace, selections: Sequence[Selection], engine: Engine | None = None
) -> list[Collection]:
    """The stage, for stages that come after it in the same command."""
    wanted = [choose(workspace, selection) for selection in selections]
    for plan in plans_for(workspace, wanted):
        folder = plan.write(workspace)
        with taken(folder):
            work = finished_by_shards(folder, plan)
            passing = plan.passing(workspace)
            if work is None:
                work = carried_out(workspace, plan, passing, engine)
            else:
                workspace.tell(f"all shards in {folder} are done: they are merged")
            finish(workspace, plan, work, passing.targets)
    return [collection_of(workspace, name, features) for name, features in wanted]


def carried_out(
    workspace: Workspace,
    plan: Plan,
    passing: Pass,
    engine: Engine | None = None,
    shard: tuple[int, int] = (1, 1),
) -> Work:
    """Do what is planned, or a shard of it, which must be `taken`.

    Raises:
        InputError: the corpus changed while it was read.
        SafesailError: see `collect`.
    """
    from safesail.contexts import Local, collect_contexts

    settings = workspace.settings.collection
    folder = plan.folder(workspace)
    work = collect_contexts(
        passing,
        workspace.corpus,
        settings,
        max_tokens=workspace.settings.corpus.max_tokens,
        engine=engine or Local(settings.checkpoint_seconds, workspace.progress),
        shard=shard,
        plan=plan.digest,
        folder=folder,
        tell=workspace.tell,
    )
    if any(sae.settings["corpus"] != workspace.corpus.fingerprint() for sae in plan.saes.values()):
        raise InputError(
            f"the corpus changed while it was read, so nothing was written: delete {folder}, run "
            "`safesail rank-saes --overwrite`, and collect again"
        )
    return work


def choose(workspace: Workspace, selection: Selection) -> tuple[str, list[int]]:
    """The SAE of a selection, and its features: best first, or as they were named."""
    ranking = rank_in(workspace, selection)
    name = selection.sae or ranking.best(selection.layer, by=selection.concepts)
    rows = ranking.features.get(name)
    if not rows:
        raise CandidateError(
            f"no feature was chosen for SAE {name!r}; ranked: {', '.join(ranking.order())}"
        )
    if selection.layer not in (None, rows[0]["layer"]):
        raise CandidateError(f"SAE {name!r} is at layer {rows[0]['layer']}, not {selection.layer}")
    if selection.features:
        width = next(row["width"] for row in ranking.rows if row["sae"] == name)
        return name, _within(selection.features, name, width)
    features = select_features(rows, workspace.concepts.select(selection.concepts), selection.limit)
    if not features:
        raise CandidateError(
            f"no feature of {name} was chosen for {', '.join(selection.concepts)}: none is called "
            "at the false discovery rate; give more pairs or raise ranking.false_discovery_rate"
        )
    return name, features


def _within(features: Sequence[int], name: str, width: int) -> list[int]:
    """Features that were named, each once, where the SAE has them all."""
    for feature in features:
        if not 0 <= feature < width:
            raise CandidateError(
                f"SAE {name!r} has no feature {feature}: it has {width:,}, from 0 to {width - 1}"
            )
    return list(dict.fromkeys(features))


def plans_for(workspace: Workspace, wanted: Sequence[tuple[str, list[int]]]) -> list[Plan]:
    """What is to be collected of what lacks contexts: one plan for SAEs that read alike."""
    from safesail.contexts import reading_of

    finish_left_over(workspace)
    features: dict[str, set[int]] = {}
    for name, chosen in wanted:
        features.setdefault(name, set()).update(chosen)
    by_reading: dict[Reading, dict[str, PlannedSae]] = {}
    for name, asked in features.items():
        settings = workspace.contexts_settings(name)
        missing = asked - _collected(workspace, name, settings)
        if missing:
            reading = reading_of(workspace.load_sae(name), workspace.model)
            threshold = sink_threshold(workspace, name)
            planned = PlannedSae(sorted(missing), threshold, settings)
            by_reading.setdefault(reading, {})[name] = planned
    found = [
        Plan(saes, workspace.settings.collection.chunk_characters, workspace.model.dtype)
        for saes in by_reading.values()
    ]
    _tell_of_others(workspace, {plan.digest for plan in found})
    return found


def _tell_of_others(workspace: Workspace, wanted: set[str]) -> None:
    others = [str(folder) for folder, _ in plans(workspace, workspace.tell, beside=wanted)]
    if others:
        workspace.tell(
            f"other collections were begun and not ended, in {', '.join(others)}: the command that "
            "began them goes on with them; delete what is not wanted"
        )


def _collected(workspace: Workspace, name: str, settings: dict[str, Any]) -> set[int]:
    """Features of an SAE that have been collected; forgets what other settings collected."""
    rows = feature_rows(workspace, name)
    shards = sorted(workspace.study.contexts(name).glob("part-*.parquet"))
    if not shards or not workspace.still_valid(shards[0], settings):
        # Recorded before the shards go: a crash in between is harmless.
        if any(row["status"] != UNCOLLECTED for row in rows):
            # Rows that the collection made, of features that no concept chose, go with it.
            rows = [{**row, "status": UNCOLLECTED} for row in rows if row["concept"] is not None]
            write_features(workspace, name, rows)
        delete(shards)
    return {row["feature"] for row in rows if row["status"] != UNCOLLECTED}


def sink_threshold(workspace: Workspace, name: str) -> float:
    """As in the ranking, so that the same tokens are content."""
    rows = rows_of(workspace.study.rankings, RANKINGS)
    threshold = next((row["sink_threshold"] for row in rows if row["sae"] == name), None)
    if threshold is None:
        raise StudyConflictError(
            f"{workspace.study.rankings} does not say which tokens are attention sinks for {name}: "
            "it was made by an earlier safesail; run `safesail rank-saes --overwrite`"
        )
    return float(threshold)


def collection_of(workspace: Workspace, name: str, features: list[int]) -> Collection:
    """What the study's tables hold of some features of an SAE."""
    rows = feature_rows(workspace, name)
    selected = set(features)
    rows = [row for row in rows if row["feature"] in selected]
    return Collection(name, rows[0]["layer"], features, rows, workspace.study.contexts(name))


def with_all_collected(workspace: Workspace, collection: Collection) -> Collection:
    """A collection with all other features of its SAE that were collected, by number too."""
    rows = feature_rows(workspace, collection.sae)
    collected = [row["feature"] for row in rows if row["status"] != UNCOLLECTED]
    features = list(dict.fromkeys([*collection.features, *collected]))
    return collection_of(workspace, collection.sae, features)
