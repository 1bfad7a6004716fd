"""The stage `explain` on a study's files."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import StudyConflictError
from safesail.pipeline._collect import Collection, collect_in
from safesail.pipeline._judging import judge_of, price_of
from safesail.pipeline._lock import held
from safesail.pipeline._qualify import experience_by_lab
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
from safesail.tables import EXPLANATIONS, table_from_rows, write_bytes, write_table

if TYPE_CHECKING:
    import pandas as pd

    from safesail.explaining import DesignEffect, Estimate, FeatureEvidence, Scoring
    from safesail.judging import Judge

_SAVE_EVERY_SECONDS = 5.0
# A row with such a status is asked for again by the next run.
_UNFINISHED = ("failed", "budget")
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
    budget: str | None = None,
    batch: bool = False,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    approve: Approve | None = None,
    tell: Tell = tell_nothing,
) -> Explanations:
    """Explain and score the chosen features of one SAE, running earlier stages if needed.

    With `judge.model` set in the study a judge is asked; otherwise the lexical baseline answers.
    Writes `explanations/<sae>.parquet` as it goes, so that a stopped run continues where it was,
    and `summary.md`.

    Args:
        study: the study.
        selection: which SAE (by default the best ranked), concepts, how many features.
        budget: what the judge's answers may cost, such as `5usd` or `2e6tokens`; the features
            that most likely repay it are then explained first.
        batch: ask the judge through its Batch API.
        dry_run: estimate what the judge would be asked, and ask nothing.
        overwrite: discard results that other settings made, instead of refusing to go on.
        progress: wraps an iterable with a label.
        approve: is told what must be downloaded of published SAEs, and says whether it may be;
            None downloads it unasked.
        tell: is given lines for people.

    Raises:
        SafesailError: see `safesail.errors`.
    """
    workspace = Workspace(study, overwrite, progress, approve, tell)
    # Before hours of collecting: without a key nothing could be asked afterwards.
    judge = None if dry_run else judge_of(study, budget=budget, batch=batch)
    (collection,) = collect_in(workspace, [selection or Selection()])
    if dry_run:
        return _explain_in(workspace, collection, None, budget=budget, batch=batch, dry_run=True)
    # Two would ask the same, and write over one another's rows. It is held without leaving a file.
    with held(collection.folder, wait=False) as free:
        if not free:
            raise StudyConflictError(
                f"another process explains features of {collection.sae} in {study.folder}: wait "
                "until it is done, and run again"
            )
        return _explain_in(workspace, collection, judge, budget=budget, batch=batch)


def _explain_in(
    workspace: Workspace,
    collection: Collection,
    judge: Judge | None,
    *,
    budget: str | None,
    batch: bool,
    dry_run: bool = False,
) -> Explanations:
    from safesail.explaining import explain_features
    from safesail.pipeline._summary import summarize

    study = workspace.study
    path = study.explanations(collection.sae)
    settings = workspace.explanations_settings(collection.sae)
    known = workspace.rows_to_keep(path, EXPLANATIONS, settings)
    ours = [row for row in known if _identity(row) == _configured_identity(study)]
    done = {row["feature"]: row for row in ours if _is_done(row, study)}
    names = list(workspace.concepts.names)
    evidence = _evidence(collection)
    left = [one for one in evidence if one.feature not in done]
    scoring = _scoring(workspace, collection, evidence, done, ours, ordered=budget is not None)
    if dry_run:
        forecast = _forecast(workspace, evidence, left, ours, scoring, batch)
        return Explanations(collection.sae, collection.layer, [], forecast)
    renewed = {one.feature for one in left}
    others = [row for row in known if row not in ours or row["feature"] not in renewed]
    table = _GrowingTable(path, settings, others)
    if left:
        try:
            explain_features(
                left,
                concepts=names,
                judge=judge,
                language=study.configuration.judge.language if judge else _LEXICAL_LANGUAGE,
                scoring=scoring,
                done=done,
                on_result=table.add,
                progress=workspace.progress,
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
        # Before the row: those that come together, as the pilot's, are saved together.
        if time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS:
            self.save()
        self.added.append(row)

    def save(self) -> None:
        table = table_from_rows([*self._kept, *self.added], EXPLANATIONS)
        write_table(self._path, table, EXPLANATIONS, self._settings)
        self._saved_at = time.monotonic()


def _identity(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    """What tells the rows of one feature apart."""
    names = ("explainer", "judge_url", "judge_model", "language", "scorer")
    return tuple(row[name] for name in names)


def _configured_identity(study: Study) -> tuple[str | None, ...]:
    """The identity of the rows that the study's settings ask for."""
    settings = study.configuration.judge
    if settings.model is None:
        return "lexical", None, None, _LEXICAL_LANGUAGE, None
    url = settings.url.rstrip("/")
    return "judge", url, settings.model, settings.language, settings.scorer


def _is_done(row: Mapping[str, Any], study: Study) -> bool:
    """Whether a row need not be made again; one that is more precise than asked is done too."""
    if row["status"] in _UNFINISHED or row["missing_failed"]:
        return False
    if row["precision"] is None:  # nothing stopped early
        return True
    # Where the budget stopped the pilot, its scores know too little of errors shared in prompts.
    unsure = row["design_effect"] is not None and row["shared_discrimination"] is None
    return not unsure and row["precision"] <= study.configuration.judge.precision


def _evidence(collection: Collection) -> list[FeatureEvidence]:
    """What is known of each feature."""
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
    ]


def _scoring(
    workspace: Workspace,
    collection: Collection,
    evidence: Sequence[FeatureEvidence],
    done: Container[int],
    ours: Sequence[Mapping[str, Any]],
    *,
    ordered: bool,
) -> Scoring:
    """How the features that are left are scored, as those before them were."""
    from safesail.explaining import Chooser, Scoring, prospects_of

    settings = workspace.settings.judge
    scoring = Scoring(scorer=settings.scorer, precision=settings.precision)
    if settings.model is None or all(one.feature in done for one in evidence):
        return scoring
    possible = [one for one in evidence if one.status == "collected" and one.shortage() is None]
    duplicates = _duplicates(workspace, collection, possible)
    scoring = replace(scoring, design_effect=_design_effect(ours), duplicates=duplicates)
    if not ordered:
        return scoring
    # What is done is among them: the others' ranks and what is learnt do not depend on the kill.
    prospects = [one for one in possible if one.feature not in duplicates]
    return replace(scoring, chooser=Chooser(prospects_of(prospects, collection.rows), seed=0))


def _duplicates(
    workspace: Workspace, collection: Collection, evidence: Sequence[FeatureEvidence]
) -> dict[int, int]:
    from safesail.explaining import find_duplicates

    features = [one.feature for one in evidence]
    if len(features) < 2:
        return {}
    directions = workspace.load_sae_alone(collection.sae).decoder_directions[features]
    contexts = {one.feature: one.contexts for one in evidence}
    found: dict[int, int] = find_duplicates(features, directions.float().cpu().numpy(), contexts)
    return found


def _design_effect(ours: Sequence[Mapping[str, Any]]) -> DesignEffect | None:
    """As the rows of an earlier part of the run have it; None where there are none."""
    from safesail.explaining import DesignEffect

    for row in ours:
        if row["shared_discrimination"] is not None and row["status"] == "scored":
            return DesignEffect(row["shared_correlation"], row["shared_discrimination"])
    return None


def _forecast(
    workspace: Workspace,
    evidence: Sequence[FeatureEvidence],
    left: Sequence[FeatureEvidence],
    ours: Sequence[Mapping[str, Any]],
    scoring: Scoring,
    batch: bool,
) -> Estimate:
    from safesail.explaining import estimate, experience_of

    common: dict[str, Any] = {
        "concepts": list(workspace.concepts.names),
        "language": workspace.settings.judge.language,
        "scoring": scoring,
    }
    by_feature = {one.feature: one for one in evidence}
    experience = experience_of(ours, by_feature, **common) or experience_by_lab(workspace.study)
    return estimate(
        left, experience=experience, price=price_of(workspace.study), batch=batch, **common
    )
