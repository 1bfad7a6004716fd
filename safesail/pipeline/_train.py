"""Train SAEs of the study's model on its corpus: they become its candidates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import StorageError, StudyConflictError
from safesail.pipeline._spool import (
    Spool,
    reading_of,
    require_room,
    size_text,
    spool,
    spool_bytes,
)
from safesail.pipeline._sweep import Planned, Sweep, plan
from safesail.pipeline._workspace import Progress, Workspace, no_progress
from safesail.study import Study, require_same
from safesail.tables import TRAINING, table_from_rows, write_bytes, write_table

if TYPE_CHECKING:
    import pandas as pd

    from safesail.sparse_autoencoder import TrainingStep

_SETTINGS_FILE = "settings.json"
_SPOOL = "activations"
# Weights, and Adam's two averages of each.
_NUMBERS_PER_WEIGHT = 3


@dataclass(frozen=True)
class TrainingProgress:
    """Where a sweep stands.

    Attributes:
        sae: name of the SAE that is trained.
        number: its place among those to be trained, from 1.
        count: how many are to be trained.
        steps_done: steps of the whole sweep that are done.
        steps_planned: steps of the whole sweep.
        loss: of the last batch.
        l0: active features per token of the last batch.
    """

    sae: str
    number: int
    count: int
    steps_done: int
    steps_planned: int
    loss: float
    l0: float


@dataclass(frozen=True)
class Training:
    """Result of `train_saes`.

    Attributes:
        rows: of the training table, the sweep's SAEs in its order.
        trained: names of those trained by this run; the others were finished before.
        folder: where the SAEs lie.
    """

    rows: list[dict[str, Any]]
    trained: list[str]
    folder: Path

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a table."""
        return table_from_rows(self.rows, TRAINING).to_pandas()


def train_saes(
    study: Study,
    sweep: Sweep | None = None,
    *,
    overwrite: bool = False,
    checkpoint_every: int = 500,
    progress: Progress = no_progress,
    watch: Callable[[TrainingProgress], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> Training:
    """Train a sweep of SAEs on the study's model and corpus.

    Writes `saes/<name>/` and `training.parquet`. A finished SAE is not trained again; a killed
    sweep goes on at the last checkpoint of the SAE it was at, and ends with the same SAEs. The
    concepts' own texts are left out, which are to judge the SAEs.

    Args:
        study: the study; its candidates need not exist yet.
        sweep: what to train.
        overwrite: train SAEs of other settings anew, instead of refusing to go on.
        checkpoint_every: most steps that a kill loses.
        progress: wraps an iterable with a label.
        watch: called now and then with where the sweep stands.
        announce: called with a line to show: the room on disk first, then each finished SAE.

    Raises:
        SafesailError: see `safesail.errors`; SAEs that were finished are kept.
    """
    sweep = sweep or Sweep()
    workspace = Workspace(study, overwrite, progress)
    tokens = study.configuration.corpus.max_tokens if sweep.tokens is None else sweep.tokens
    planned = plan(sweep, workspace.model, tokens)
    reading = reading_of(workspace.model)
    shared = {
        **workspace.training_settings(),
        "tokens": tokens,
        "prepend_bos": reading.prepend_bos,
        "context_size": reading.context_size,
    }
    waiting = [one for one in planned if not _is_finished(workspace, one, shared)]
    if waiting:
        filled = _fill_spool(workspace, waiting, shared, sweep.seed, announce)
        for number, one in enumerate(waiting, start=1):
            step = _watcher(watch, waiting, number)
            _train(workspace, one, filled, shared, checkpoint_every, step)
            row = _write_training_table(study)[one.name]
            announce(
                f"{number}/{len(waiting)} {one.name}: L0 {row['l0']:.1f}, FVU {row['fvu']:.3f}, "
                f"dead {100 * row['dead_share']:.0f} %, {row['seconds']:.0f} s"
            )
    work = _work(study)
    shutil.rmtree(work / _SPOOL, ignore_errors=True)
    if work.exists() and not any(work.iterdir()):  # another sweep may have been left unfinished
        work.rmdir()
    rows = _write_training_table(study)
    return Training([rows[one.name] for one in planned], [one.name for one in waiting], study.saes)


def _work(study: Study) -> Path:
    """Folder of what a sweep needs while it runs."""
    return study.folder / "training"


def _settings(one: Planned, shared: dict[str, Any]) -> dict[str, Any]:
    return {**shared, **asdict(one.recipe)}


def _is_finished(workspace: Workspace, one: Planned, shared: dict[str, Any]) -> bool:
    """Whether an SAE lies there as it would be trained.

    Raises:
        StudyConflictError: it, or an unfinished one, is of other settings, or not of ours.
    """
    from safesail.sparse_autoencoder import SETTINGS_KEY, training_record

    folder = workspace.study.saes / one.name
    settings = _settings(one, shared)
    record = training_record(folder)
    if record is not None:
        if record[SETTINGS_KEY] == settings:
            shutil.rmtree(_work(workspace.study) / one.name, ignore_errors=True)
            return True
        if not workspace.overwrite:
            require_same(record[SETTINGS_KEY], settings, folder)
    elif folder.exists() and not workspace.overwrite:
        raise StudyConflictError(
            f"{folder} exists and was not made by `safesail train-saes`: move it away, "
            "or add --overwrite"
        )
    _begin(workspace, one, settings)
    return False


def _begin(workspace: Workspace, one: Planned, settings: dict[str, Any]) -> None:
    """Leave checkpoints of these settings, if there are any, and none of others."""
    folder = _work(workspace.study) / one.name
    path = folder / _SETTINGS_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = None
    if stored == settings:
        return
    if stored is not None and not workspace.overwrite:
        require_same(stored, settings, folder)
    shutil.rmtree(folder, ignore_errors=True)
    write_bytes(path, json.dumps(settings).encode())


def _fill_spool(
    workspace: Workspace,
    waiting: list[Planned],
    shared: dict[str, Any],
    seed: int,
    announce: Callable[[str], None],
) -> Spool:
    study, model = workspace.study, workspace.model
    sizes = {one.recipe.hook_point: one.d_in for one in waiting}
    activations = spool_bytes(sizes.values(), shared["tokens"])
    weights = max(2 * one.recipe.width * one.d_in for one in waiting)
    # A new checkpoint is written before the old one goes.
    checkpoints = 2 * 4 * _NUMBERS_PER_WEIGHT * weights
    what = (
        f"activations of {shared['tokens']:,} tokens at {_count(len(sizes), 'hook point')} and a "
        "checkpoint"
    )
    announce(
        f"{_count(len(waiting), 'SAE')} to train; {what} take up to "
        f"{size_text(activations + checkpoints)} of disk, freed at the end"
    )
    folder = _work(study) / _SPOOL
    have = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    require_room(study.folder, activations + checkpoints - have, what)
    return spool(
        folder,
        model,
        workspace.documents,
        sizes,
        tokens=shared["tokens"],
        seed=seed,
        settings={**shared, "seed": seed},
        progress=workspace.progress,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _train(
    workspace: Workspace,
    one: Planned,
    filled: Spool,
    shared: dict[str, Any],
    checkpoint_every: int,
    watch: Callable[[TrainingStep], None],
) -> None:
    from safesail.sparse_autoencoder import SETTINGS_KEY, train_sae

    study, model, point = workspace.study, workspace.model, one.recipe.hook_point
    activations, heldout = filled.read(point)
    train_sae(
        one.recipe,
        activations,
        heldout,
        study.saes / one.name,
        about={
            "model_name": model.name,
            "prepend_bos": shared["prepend_bos"],
            "context_size": shared["context_size"],
            SETTINGS_KEY: _settings(one, shared),
            "safesail_tokens": filled.tokens[point],
            "safesail_heldout_tokens": filled.heldout_tokens[point],
        },
        device=model.device,
        checkpoints=_work(study) / one.name,
        checkpoint_every=checkpoint_every,
        watch=watch,
    )


def _watcher(
    watch: Callable[[TrainingProgress], None], waiting: list[Planned], number: int
) -> Callable[[TrainingStep], None]:
    """Tell where the sweep stands, from where one training does."""
    before = sum(one.recipe.steps for one in waiting[: number - 1])
    planned = sum(one.recipe.steps for one in waiting)

    def step(now: TrainingStep) -> None:
        watch(
            TrainingProgress(
                sae=waiting[number - 1].name,
                number=number,
                count=len(waiting),
                steps_done=before + now.step,
                steps_planned=planned,
                loss=now.loss,
                l0=now.l0,
            )
        )

    return step


def _write_training_table(study: Study) -> dict[str, dict[str, Any]]:
    """The table of all SAEs trained in the study, from what their folders say; rows by name."""
    from safesail.sparse_autoencoder import SETTINGS_KEY, trained_folders, training_record

    rows, settings = {}, {}
    for folder in trained_folders(study.saes):
        record = training_record(folder)
        if record is None or "safesail_figures" not in record:
            raise StorageError(f"{folder}/cfg.json lacks its figures; delete the folder")
        made = record[SETTINGS_KEY]
        settings[folder.name] = made
        rows[folder.name] = {
            **made,
            **record["safesail_figures"],
            "sae": folder.name,
            "layer": int(made["hook_point"].split(".")[1]),
            "tokens": record["safesail_tokens"],
            "heldout_tokens": record["safesail_heldout_tokens"],
        }
    write_table(study.training, table_from_rows(rows.values(), TRAINING), TRAINING, settings)
    return rows
