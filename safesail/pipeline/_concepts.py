"""From a study to pairs for review, and from a review to a file of concepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from safesail.concepts import load_concepts
from safesail.errors import ConfigurationError, InputError
from safesail.generating import (
    REVIEW_ENDING,
    CheckedPair,
    GeneratedPairs,
    PairChecks,
    Remark,
    SetReport,
    generate_pairs,
    read_review,
    report_on,
    require_name,
    write_lines,
    write_review,
)
from safesail.pipeline._judging import judge_of
from safesail.study import Study, language_tag

# A pair with these shows nothing, whoever keeps it; other faults a person may overrule.
_FATAL = ("empty", "equal_twins")


@dataclass(frozen=True)
class AcceptedConcept:
    """What became of a review.

    Attributes:
        concept: name of the concept.
        path: the file of concepts that was written.
        reference: that file as `concepts.files` of the study names it.
        listed: whether the study lists it already.
        pairs: the pairs in it, with what the checks say of them now.
        left_out: pairs of the review that are not kept.
        report: measures of the set.
    """

    concept: str
    path: Path
    reference: str
    listed: bool
    pairs: tuple[CheckedPair, ...]
    left_out: int
    report: SetReport


def _review_path(study: Study, concept: str, output: Path | None) -> Path:
    """Where the review of a concept lies: beside the file that its accepted pairs go to."""
    try:
        require_name(concept)
    except ValueError as error:
        raise InputError(str(error)) from None
    path = output or study.folder / "concepts" / f"{concept}.jsonl"
    if path.suffix != ".jsonl" or path.name.endswith(REVIEW_ENDING):
        raise InputError(
            f"{path}: name the file that accepted pairs go to, such as concepts/fraud.jsonl; "
            f"the review is written beside it, as fraud{REVIEW_ENDING}"
        )
    return path.with_name(path.stem + REVIEW_ENDING)


def _require_free(path: Path, replace: Callable[[Path], bool], advice: str) -> None:
    """Ask about a file that lies there, before anything is paid for."""
    try:
        lies_there = path.exists()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    if lies_there and not replace(path):
        raise InputError(f"{path} exists: {advice}, or add --yes to replace it")


def _never(path: Path) -> bool:
    return False


def generate_concept(
    study: Study,
    concept: str,
    description: str,
    *,
    count: int = 40,
    language: str = "en",
    output: Path | None = None,
    seed: int = 0,
    budget: str | None = None,
    replace: Callable[[Path], bool] = _never,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> tuple[GeneratedPairs, Path | None]:
    """Have the study's judge write contrast pairs for a concept, for review.

    Nothing is added to the study's concepts: see `accept_concept`.

    Args:
        study: the study; its judge is asked, its cache keeps the answers, its pairs are avoided.
        concept, description, count, language, seed, progress: see `generate_pairs`.
        output: the file for accepted pairs; by default `concepts/<concept>.jsonl` of the study.
            The review is written beside it, its name ending in `.review.jsonl`.
        budget: what the answers may cost, such as `5usd` or `2e6tokens`.
        replace: asked whether a review that lies there may be replaced.

    Returns:
        What came of it, and the review; None where the judge wrote nothing to review.

    Raises:
        ConfigurationError: the study names no judge model, or the budget cannot be read.
        InputError: no concept can have that name, no description, no such language, `output` is
            no JSONL file, or a review lies there that may not be replaced.
        JudgeError: the judge cannot be asked at all.
        StorageError: an answer or the review could not be stored.
    """
    path = _review_path(study, concept, output)
    _require_free(path, replace, "accept it, move it")
    language = language_tag(language)
    judge = judge_of(study, budget=budget)
    if judge is None:
        raise ConfigurationError(
            "no judge writes the pairs: set judge.model, or name one with --judge-model"
        )
    generated = generate_pairs(
        judge,
        concept,
        description,
        count=count,
        language=language,
        existing=load_concepts(study.configuration.concepts.files, study.folder).pairs,
        seed=seed,
        progress=progress,
    )
    if not generated.pairs:
        return generated, None
    write_review(path, generated)
    return generated, path


def accept_concept(
    study: Study, review: Path, *, replace: Callable[[Path], bool] = _never
) -> AcceptedConcept:
    """Write the pairs that a person kept as a file of concepts, beside the review.

    They are checked once more, as a person may have changed their words; what the checks say is
    said, and the person's word counts.

    Args:
        study: the study, whose other pairs are compared with.
        review: the file that `generate_concept` wrote.
        replace: asked whether a file of concepts that lies there may be replaced.

    Raises:
        InputError: the review is missing or malformed, keeps nothing, or keeps an empty text or a
            pair of equal twins; or a file of concepts lies there that may not be replaced.
        StorageError: it cannot be written; an earlier file is intact.
    """
    found = read_review(review)
    path = review.with_name(review.name.removesuffix(REVIEW_ENDING) + ".jsonl")
    if not found.kept:
        raise InputError(f"{review} keeps no pair: set `keep` to true in some")
    _require_free(path, replace, "move it")
    files = study.configuration.concepts.files
    others = [file for file in files if study.resolve(file) != path.resolve()]
    header = found.header
    checks = PairChecks(
        header.concept,
        header.language,
        len(found.kept),
        load_concepts(others, study.folder).pairs,
    )
    checked = []
    for line, pair in found.kept:
        one = checks.check(pair.positive, pair.negative)
        for fault in one.faults:
            if fault.reason in _FATAL:
                raise InputError(f"{review}, line {line}: {fault}; mend it, or keep it not")
        checked.append(one)
    report = report_on(checked, seed=header.seed)
    rows = [
        {
            "concept": header.concept,
            "positive": pair.positive,
            "negative": pair.negative,
            "generated_by": header.judge_model,
            "prompt_version": header.prompt_version,
        }
        for pair in checked
    ]
    write_lines(path, rows)
    return AcceptedConcept(
        concept=header.concept,
        path=path,
        reference=_reference(study, path),
        listed=len(others) < len(files),
        pairs=tuple(report.flag(_overruled(pair)) for pair in checked),
        left_out=len(found.pairs) - len(found.kept),
        report=report,
    )


def _overruled(pair: CheckedPair) -> CheckedPair:
    """A pair that a person kept: what spoke against it is still shown."""
    flags: tuple[Remark, ...] = (*pair.faults, *pair.flags)
    return CheckedPair(pair.positive, pair.negative, flags=flags)


def _reference(study: Study, path: Path) -> str:
    """A path as `safesail.toml` names it: relative to the study where it lies within."""
    whole = path.resolve()
    within = whole.is_relative_to(study.folder)
    return (whole.relative_to(study.folder) if within else whole).as_posix()
