"""What the study's judge is worth, by features whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from safesail.errors import ConfigurationError, StudyConflictError
from safesail.pipeline._judging import judge_of
from safesail.pipeline._lock import held
from safesail.pipeline._workspace import Progress, no_progress
from safesail.study import Study

if TYPE_CHECKING:
    from safesail.explaining import Experience, PlantedFeature, Qualification
    from safesail.judging import Judge


def qualify(
    study: Study,
    features: Sequence[PlantedFeature],
    *,
    budget: str | None = None,
    progress: Progress = no_progress,
) -> Qualification:
    """Put the study's judge before features whose truth is known, and keep what is found.

    Needs nothing of the study but its judge settings. The report is kept beside the answers, where
    a dry run of `explain` finds it, unless a budget ended it.

    Args:
        study: names the judge.
        features: such as those of `safesail.lab.planted_features`.
        budget: what the answers may cost, such as `5usd` or `2e6tokens`.
        progress: wraps an iterable with a label.

    Raises:
        ConfigurationError: the study names no judge, or the budget cannot be read.
        JudgeError: the judge cannot be reached, or refuses every request.
        StorageError: an answer or the report could not be stored.
        StudyConflictError: another process qualifies a judge of this study.
    """
    judge = judge_of(study, budget=budget)
    if judge is None:
        raise ConfigurationError(
            "there is no judge to qualify: name one with --judge-model, or as judge.model in "
            f"{study.folder / 'safesail.toml'}"
        )
    # Two would pay for the same. The folder is one that nothing else holds.
    with held(study.folder / "explanations", wait=False) as free:
        if not free:
            raise StudyConflictError(
                f"another process qualifies a judge in {study.folder}: wait until it is done, and "
                "run again, which asks nothing that was answered"
            )
        return _qualify(study, judge, features, progress)


def _qualify(
    study: Study, judge: Judge, features: Sequence[PlantedFeature], progress: Progress
) -> Qualification:
    from safesail.explaining import Scoring, qualify_judge
    from safesail.judging import AnswerCache, History

    settings = study.configuration.judge
    found = qualify_judge(
        features,
        judge=judge,
        concepts=list(dict.fromkeys(one.name.partition("/")[0] for one in features)),
        language=settings.language,
        scoring=Scoring(precision=settings.precision),
        progress=progress,
    )
    seconds = {
        one.task: one.median_seconds
        for one in History(study.judge_cache).totals()
        if (one.url, one.model) == (found.url, found.model)
    }
    found = found.model_copy(update={"seconds": seconds})
    if found.finished:
        with closing(AnswerCache(study.judge_cache)) as cache:
            cache.add_qualification(found.url, found.model, found.model_dump_json())
    return found


def experience_by_lab(study: Study) -> Experience | None:
    """What the study's judge took when it was qualified; None if it was not."""
    settings = study.configuration.judge
    if settings.model is None or not study.judge_cache.exists():
        return None
    from safesail.judging import AnswerCache

    with closing(AnswerCache(study.judge_cache)) as cache:
        reports = cache.qualifications(settings.url.rstrip("/"), settings.model)
    found = min(
        (one for one in map(_read, reports) if one is not None and one.experience is not None),
        # Of several the one that was asked alike, else the latest.
        key=lambda one: (
            one.language != settings.language,
            abs(one.precision - settings.precision),
        ),
        default=None,
    )
    if found is None or found.experience is None:
        return None
    basis = f"by {found.explained} lab features that this judge was qualified on"
    if found.precision != settings.precision:
        basis += f", at a precision of {found.precision:g} instead of {settings.precision:g}"
    if found.language != settings.language:
        basis += f", explained in {found.language} instead of {settings.language}"
    return replace(found.experience, basis=basis)


def _read(report: str) -> Qualification | None:
    from pydantic import ValidationError

    from safesail.explaining import Qualification

    try:
        return Qualification.model_validate_json(report)
    except ValidationError:  # another version's
        return None
