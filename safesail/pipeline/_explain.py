"""The stage `explain` on a study's files."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safesail.errors import ConfigurationError, StudyConflictError
from safesail.pipeline._collect import Collection, collect_in, with_all_collected
from safesail.pipeline._explanation_rows import (
    LEXICAL_LANGUAGE,
    GrowingTable,
    configured_identity,
    identity,
    is_by_judge,
    is_done,
)
from safesail.pipeline._imported import imported_rounds
from safesail.pipeline._judging import judge_of, price_of
from safesail.pipeline._lock import held
from safesail.pipeline._qualify import experience_by_lab
from safesail.pipeline._selection import Selection, chosen_for
from safesail.pipeline._workspace import (
    Approve,
    Progress,
    Tell,
    Workspace,
    no_progress,
    tell_nothing,
)
from safesail.study import Study
from safesail.tables import EXPLANATIONS, table_from_rows, write_bytes

if TYPE_CHECKING:
    import pandas as pd

    from safesail.explaining import DesignEffect, Estimate, FeatureEvidence, Scoring
    from safesail.judging import Judge


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
    imported: str | None = None,
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
        selection: which SAE (by default the best ranked), concepts, how many features, or which.
        imported: the source of imported explanations, such as `neuronpedia:file.jsonl`; these are
            scored, those in the study's language, and no explanation is asked for. Unless the
            selection narrows the features, those of all features that were collected.
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
    if imported is not None and study.configuration.judge.model is None:
        raise ConfigurationError(
            "no judge scores what was imported: set judge.model, or name one with --judge-model"
        )
    selection = selection or Selection()
    (collection,) = collect_in(workspace, [selection])
    if imported is not None and selection.takes_all:
        collection = with_all_collected(workspace, collection)
    more: dict[str, Any] = {"imported": imported, "budget": budget, "batch": batch}
    if dry_run:
        return _explain_in(workspace, collection, None, dry_run=True, **more)
    # Two would ask the same, and write over one another's rows. It is held without leaving a file.
    with held(collection.folder, wait=False) as free:
        if not free:
            raise StudyConflictError(
                f"another process explains features of {collection.sae} in {study.folder}: wait "
                "until it is done, and run again"
            )
        return _explain_in(workspace, collection, judge, **more)


def _explain_in(
    workspace: Workspace,
    collection: Collection,
    judge: Judge | None,
    *,
    imported: str | None,
    budget: str | None,
    batch: bool,
    dry_run: bool = False,
) -> Explanations:
    from safesail.explaining import added_up, explain_features
    from safesail.pipeline._summary import summarize

    study = workspace.study
    path = study.explanations(collection.sae)
    settings = workspace.explanations_settings(collection.sae)
    known = workspace.rows_to_keep(path, EXPLANATIONS, settings)
    evidence = _evidence(collection)
    by_feature = {one.feature: one for one in evidence}
    # Several texts of one feature are scored in turn: each round has one of each feature.
    rounds: list[Mapping[int, dict[str, Any]]] = [{}]
    if imported is not None:
        rounds = imported_rounds(workspace, collection, known, imported)
    wanted = configured_identity(study, imported)
    result: list[dict[str, Any]] = []
    forecasts: list[Estimate] = []
    for number, given in enumerate(rounds):
        asked = [by_feature[feature] for feature in given] if given else evidence
        ours = [row for row in known if identity(row) == wanted and _is_of(row, given)]
        done = {row["feature"]: row for row in ours if is_done(row, study)}
        left = [one for one in asked if one.feature not in done]
        judged = [row for row in known if is_by_judge(row, study)]
        ordered = budget is not None and not given
        scoring = _scoring(workspace, collection, asked, done, judged, given, ordered=ordered)
        if dry_run:
            # A pilot that the first round has is not repeated.
            scoring = scoring if not number else scoring.after_pilot()
            forecasts.append(_forecast(workspace, by_feature, left, judged, scoring, batch))
            continue
        renewed = {one.feature for one in left}
        replaced = {id(row) for row in ours if row["feature"] in renewed}
        others = [row for row in known if id(row) not in replaced]
        table = GrowingTable(path, settings, others)
        if left:
            try:
                explain_features(
                    left,
                    concepts=list(workspace.concepts.names),
                    judge=judge,
                    language=study.configuration.judge.language if judge else LEXICAL_LANGUAGE,
                    scoring=scoring,
                    done=done,
                    on_result=table.add,
                    progress=workspace.progress,
                )
            finally:
                table.save()
        known = [*others, *table.added]
        rows = {**done, **{row["feature"]: row for row in table.added}}
        result += [rows[feature] for feature in collection.features if feature in rows]
    if dry_run:
        return Explanations(collection.sae, collection.layer, [], added_up(forecasts))
    write_bytes(study.folder / "summary.md", summarize(study, collection.sae).encode())
    return Explanations(collection.sae, collection.layer, result)


def _is_of(row: Mapping[str, Any], given: Mapping[int, Mapping[str, Any]]) -> bool:
    """Whether a row is of the explanation that is given; any is, where none are."""
    if not given:
        return True
    now = given.get(row["feature"])
    return now is not None and now["explanation"] == row["explanation"]


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
            concepts=chosen_for(rows[feature]),
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
    judged: Sequence[Mapping[str, Any]],
    given: Mapping[int, Mapping[str, Any]],
    *,
    ordered: bool,
) -> Scoring:
    """How the features that are left are scored, as those before them were."""
    from safesail.explaining import Chooser, Scoring, prospects_of

    settings = workspace.settings.judge
    scoring = Scoring(scorer=settings.scorer, precision=settings.precision, given=given)
    if settings.model is None or all(one.feature in done for one in evidence):
        return scoring
    if given:
        return replace(scoring, design_effect=_design_effect(judged))
    possible = [one for one in evidence if one.status == "collected" and one.shortage() is None]
    duplicates = _duplicates(workspace, collection, possible)
    scoring = replace(scoring, design_effect=_design_effect(judged), duplicates=duplicates)
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


def _design_effect(judged: Sequence[Mapping[str, Any]]) -> DesignEffect | None:
    """As rows that this judge has scored alike have it; None where there are none."""
    from safesail.explaining import DesignEffect

    for row in judged:
        if row["shared_discrimination"] is not None and row["status"] == "scored":
            return DesignEffect(row["shared_correlation"], row["shared_discrimination"])
    return None


def _forecast(
    workspace: Workspace,
    by_feature: Mapping[int, FeatureEvidence],
    left: Sequence[FeatureEvidence],
    judged: Sequence[Mapping[str, Any]],
    scoring: Scoring,
    batch: bool,
) -> Estimate:
    from safesail.explaining import estimate, experience_of

    common: dict[str, Any] = {
        "concepts": list(workspace.concepts.names),
        "language": workspace.settings.judge.language,
        "scoring": scoring,
    }
    experience = experience_of(judged, by_feature, **common) or experience_by_lab(workspace.study)
    return estimate(
        left, experience=experience, price=price_of(workspace.study), batch=batch, **common
    )
