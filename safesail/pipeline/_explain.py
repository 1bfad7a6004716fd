"""The stage `explain` on a study's files."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.pipeline._collect import Collection, collect_in
from safesail.pipeline._selection import Selection
from safesail.pipeline._workspace import Approve, Progress, Workspace, no_progress
from safesail.study import Study
from safesail.tables import EXPLANATIONS, table_from_rows, write_bytes, write_table

if TYPE_CHECKING:
    import pandas as pd

    from safesail.explaining import Estimate, FeatureEvidence
    from safesail.judging import Judge

_SAVE_EVERY_SECONDS = 5.0
# A row with this status is asked for again by the next run.
_UNFINISHED = "failed"
_LEXICAL_LANGUAGE = "en"


@dataclass(frozen=True)
class Explanations:
    """Result of the stage `explain`.

    Attributes:
        sae: the SAE.
        layer: its layer.
        rows: rows of the explanations table for the selected features, best first.
        estimate: what the judge would be asked, after a dry run.
    """

    sae: str
    layer: int
    rows: list[dict[str, Any]]
    estimate: Estimate | None = None

    def to_pandas(self) -> pd.DataFrame:
        """The explanations table."""
        return table_from_rows(self.rows, EXPLANATIONS).to_pandas()


def explain(
    study: Study,
    selection: Selection | None = None,
    *,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    approve: Approve | None = None,
) -> Explanations:
    """Explain and score the chosen features of one SAE, running earlier stages if needed.

    With `judge.model` set in the study a judge is asked; otherwise the lexical baseline answers.
    Writes `explanations/<sae>.parquet` as it goes, so that a stopped run continues where it was,
    and `summary.md`.

    Args:
        study: the study.
        selection: which SAE (by default the best ranked), concepts, how many features.
        dry_run: estimate what the judge would be asked, and ask nothing.
        overwrite: discard results that other settings made, instead of refusing to go on.
        progress: wraps an iterable with a label.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    from safesail.explaining import estimate, explain_features
    from safesail.pipeline._summary import summarize

    workspace = Workspace(study, overwrite, progress, approve)
    # Before hours of collecting: without a key nothing could be asked afterwards.
    judge = None if dry_run else _judge(workspace)
    (collection,) = collect_in(workspace, [selection or Selection()])
    path = study.explanations(collection.sae)
    settings = workspace.explanations_settings(collection.sae)
    known = workspace.rows_to_keep(path, EXPLANATIONS, settings)
    identity = _configured_identity(study)
    done = {
        row["feature"]: row
        for row in known
        if _identity(row) == identity and row["status"] != _UNFINISHED
    }
    names = list(workspace.concepts.names)
    evidence = _evidence(collection, skip=done)
    if dry_run:
        language = study.configuration.judge.language
        forecast = estimate(evidence, concepts=names, language=language)
        return Explanations(collection.sae, collection.layer, [], forecast)
    renewed = {one.feature for one in evidence}
    others = [r for r in known if _identity(r) != identity or r["feature"] not in renewed]
    table = _GrowingTable(path, settings, others)
    if evidence:
        try:
            explain_features(
                progress(evidence, "explaining"),
                concepts=names,
                judge=judge,
                language=identity[-1],
                on_result=table.add,
            )
        finally:
            table.save()
    rows = {**done, **{row["feature"]: row for row in table.added}}
    result = [rows[feature] for feature in collection.features if feature in rows]
    write_bytes(study.folder / "summary.md", summarize(study, collection.sae).encode())
    return Explanations(collection.sae, collection.layer, result)


class _GrowingTable:
    """Rows of an explanations table, saved every few seconds while more come."""

    def __init__(self, path: Path, settings: dict[str, Any], kept: list[dict[str, Any]]) -> None:
        self.added: list[dict[str, Any]] = []
        self._path, self._settings, self._kept = path, settings, kept
        self._saved_at = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        self.added.append(row)
        if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        table = table_from_rows([*self._kept, *self.added], EXPLANATIONS)
        write_table(self._path, table, EXPLANATIONS, self._settings)
        self._saved_at = time.monotonic()


def _identity(row: dict[str, Any]) -> tuple[str, str | None, str | None, str]:
    """What tells the rows of one feature apart."""
    return row["explainer"], row["judge_url"], row["judge_model"], row["language"]


def _configured_identity(study: Study) -> tuple[str, str | None, str | None, str]:
    """The identity of the rows that the study's settings ask for."""
    settings = study.configuration.judge
    if settings.model is None:
        return "lexical", None, None, _LEXICAL_LANGUAGE
    return "judge", settings.url.rstrip("/"), settings.model, settings.language


def _judge(workspace: Workspace) -> Judge | None:
    settings = workspace.settings.judge
    if settings.model is None:
        return None
    from safesail.judging import Judge

    return Judge(
        settings.url,
        settings.model,
        cache=workspace.study.judge_cache,
        key_variable=settings.key_variable,
        concurrency=settings.concurrency,
    )


def _evidence(collection: Collection, skip: Container[int]) -> list[FeatureEvidence]:
    """What is known of each feature that has no explanation yet."""
    from safesail.explaining import FeatureEvidence

    contexts = collection.contexts()
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in collection.rows:
        rows.setdefault(row["feature"], []).append(row)
    return [
        FeatureEvidence(
            sae=collection.sae,
            layer=collection.layer,
            feature=feature,
            q999=rows[feature][0]["q999"],
            concepts=[
                row["concept"] for row in sorted(rows[feature], key=lambda r: -r["separation"])
            ],
            contexts=contexts.get(feature, []),
            status=rows[feature][0]["status"],
        )
        for feature in collection.features
        if feature not in skip
    ]
