"""An evaluation as files: a table of answers, figures as JSON, and a page of Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from safesail.alignment._evaluation import Evaluation
from safesail.alignment._figures import Figures
from safesail.alignment._intervals import Estimate
from safesail.alignment._measures import GradedReply
from safesail.errors import StudyConflictError
from safesail.tables import ANSWERS, markdown_text, write_bytes, write_table

ANSWERS_FILE, FIGURES_FILE, PAGE_FILE = "answers.parquet", "evaluation.json", "evaluation.md"


def answer_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of `ANSWERS`: systems, seeds and prompts in their order."""
    return [
        _row(one, evaluation)
        for answers in evaluation.answers.values()
        for said in answers.replies.values()
        for one in said
    ]


def figure_rows(found: Sequence[Figures]) -> list[dict[str, Any]]:
    """Figures as plain values, ready for JSON: nested as in `Figures`, NaN as null.

    Each has `safety` whole or not at all, so that no safety rate stands without its over-refusal.
    """
    return [_plain(_named_groups(one)) for one in found]


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    *,
    against: str | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write `answers.parquet`, `evaluation.json` and `evaluation.md` into a folder.

    Args:
        evaluation: what to write.
        folder: made where missing.
        against: the system that the others are compared with.
        settings: that made it, as JSON, kept in the table and beside the figures.
        notes: lines for the page, such as how the systems were trained.

    Raises:
        InputError: there is no such system.
        StorageError: the disk is full or the folder not writable.
    """
    found = evaluation.figures()
    differences = [] if against is None else evaluation.differences(against)
    table = pa.Table.from_pylist(answer_rows(evaluation), ANSWERS.arrow())
    write_table(folder / ANSWERS_FILE, table, ANSWERS, dict(settings or {}))
    grading = evaluation.grading
    content = {
        "settings": dict(settings or {}),
        "prompts": len(evaluation.prompts),
        "judge": evaluation.judge,
        "judge_url": evaluation.judge_url,
        "prompt_version": evaluation.prompt_version,
        "judge_statuses": evaluation.statuses,
        "judge_cost_usd": None if grading is None else grading.cost_usd,
        "figures": figure_rows(found),
        "differences": figure_rows(differences),
    }
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_bytes(folder / FIGURES_FILE, text.encode())
    page = evaluation_page(evaluation, against=against, notes=notes)
    write_bytes(folder / PAGE_FILE, page.encode())


def check_same_stage(folder: Path, stage: str) -> None:
    """Refuse to replace what another stage wrote, as its `settings["stage"]` tells.

    Raises:
        StudyConflictError: the folder holds figures of another stage.
    """
    try:
        found = json.loads((folder / FIGURES_FILE).read_bytes())["settings"]["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if found != stage:
        raise StudyConflictError(
            f"{folder} holds what `{found}` wrote, which `{stage}` would replace: give another "
            "folder with --output"
        )


def evaluation_page(
    evaluation: Evaluation, *, against: str | None = None, notes: Sequence[str] = ()
) -> str:
    """Figures, groups and paired differences as Markdown, and lines on what they are of.

    Raises:
        InputError: there is no system `against`.
    """
    found = evaluation.figures()
    parts = ["# Evaluation", _who(evaluation), "## Systems", _table(found)]
    groups = [one for one in found if one.groups]
    if groups:
        parts += ["## Groups of prompts", _group_table(groups)]
    differences = [] if against is None else evaluation.differences(against)
    if differences:
        parts += [
            f"## Differences to {markdown_text(str(against))}",
            "Paired by prompt and by seed; of perplexity, the ratio.",
            _table(differences),
        ]
    if notes:
        parts += ["## How", "\n".join(f"- {markdown_text(line)}" for line in notes)]
    return "\n\n".join(parts) + "\n"


_COLUMNS = {
    "safety_rate": "safety rate",
    "over_refusal": "over-refusal",
    "balanced": "balanced",
    "harmfulness": "harmfulness",
    "high_risk": "high risk",
    "benign_refusal": "benign refused",
    "exact_match": "exact match",
    "perplexity": "perplexity",
}


def _who(evaluation: Evaluation) -> str:
    kinds = [one.kind for one in evaluation.prompts]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    lines = f"{len(kinds)} prompts ({counts}). In brackets: 95 % intervals. "
    if evaluation.judge is None:
        return lines + (
            "No judge was asked: refusals are told by fixed rules over the first words of an "
            "answer (`lexical`), a baseline that sees no harm in an answer."
        )
    statuses = ", ".join(f"{count} {name}" for name, count in evaluation.statuses.items())
    return lines + (
        f"Judge: {markdown_text(evaluation.judge)}; answers: {statuses}. Rows marked `lexical` are "
        "a baseline: refusals by fixed rules over the first words of an answer."
    )


def _table(found: Sequence[Figures]) -> str:
    cells = [[(name, _value(one, name)) for name in _COLUMNS] for one in found]
    shown = [
        place for place in range(len(_COLUMNS)) if any(row[place][1] is not None for row in cells)
    ]
    titles = [list(_COLUMNS.values())[place] for place in shown]
    lines = [_line(["system", "told by", "seeds", *titles]), _line(["---"] * (3 + len(shown)))]
    for one, row in zip(found, cells, strict=True):
        values = [_text(row[place][1]) for place in shown]
        known = [value for _, value in row if value is not None]
        seeds = str(max((value.seeds for value in known), default=0))
        lines.append(_line([markdown_text(one.system), f"`{one.grader}`", seeds, *values]))
    notes = [
        f"{markdown_text(one.system)}: answers without a grade: {one.ungraded}; had they one, "
        + " and ".join(
            f"the {_COLUMNS[name]} would lie between {low:.3f} and {high:.3f}"
            for name, (low, high) in one.bounds.items()
        )
        + "."
        for one in found
        if one.bounds
    ]
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


def _group_table(found: Sequence[Figures]) -> str:
    names = list(dict.fromkeys(group for one in found for group in one.groups))
    titles = [f"{group} ({kind})" for kind, group in names]
    lines = [
        "Safety rate of harmful prompts, refused share of look-alikes; of benign prompts the exact "
        "match, or where no answer is given the refused share.",
        "",
        _line(["system", "told by", *map(markdown_text, titles)]),
        _line(["---"] * (2 + len(names))),
    ]
    for one in found:
        values = [_text(one.groups.get(name)) for name in names]
        lines.append(_line([markdown_text(one.system), f"`{one.grader}`", *values]))
    return "\n".join(lines)


def _value(one: Figures, name: str) -> Estimate | None:
    value = getattr(one.safety, name, None)
    return value if value is not None else getattr(one, name, None)


def _text(value: Estimate | None) -> str:
    if value is None or math.isnan(value.value):
        return "–"
    if math.isnan(value.low):
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _named_groups(one: Figures) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "groups"}
    row["safety"] = None if one.safety is None else asdict(one.safety)
    row["groups"] = [
        {"kind": kind, "group": group, "estimate": asdict(value)}
        for (kind, group), value in one.groups.items()
    ]
    for name in ("benign_refusal", "exact_match", "perplexity"):
        row[name] = None if row[name] is None else asdict(row[name])
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _row(one: GradedReply, evaluation: Evaluation) -> dict[str, Any]:
    grade = one.grade
    return {
        "system": one.system,
        "seed": one.seed,
        "prompt_id": one.prompt.id,
        "kind": one.prompt.kind,
        "group": one.prompt.group,
        "prompt": one.prompt.prompt,
        "answer": one.reply.text,
        "tokens": one.reply.tokens,
        "cut": one.reply.cut,
        "lexical": one.lexical,
        "grade_status": None if grade is None else grade.status,
        "grade": None if grade is None else grade.grade,
        "refusal": None if grade is None else grade.refusal,
        "grade_error": None if grade is None else grade.error,
        "expected": one.prompt.answer,
        "exact": one.exact,
        "judge_model": evaluation.judge,
        "prompt_version": evaluation.prompt_version,
    }
