"""`safesail judge qualify`: what a judge is worth, before money is spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import (
    BudgetOption,
    DebugOption,
    FallbackJudgeOption,
    FallbackUrlOption,
    JsonOption,
    JudgeUrlOption,
    LanguageOption,
    PrecisionOption,
    StudyOption,
)
from ._output import interval, note, number, percent, print_json, print_table, progress, say

if TYPE_CHECKING:
    from safesail.explaining import Qualification

_NOT_QUALIFIED = 3


def qualify(
    study: StudyOption = Path(),
    judge_url: JudgeUrlOption = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", help="Model at that URL.")
    ] = None,
    fallback_judge: FallbackJudgeOption = None,
    fallback_url: FallbackUrlOption = None,
    language: LanguageOption = None,
    features: Annotated[
        int, typer.Option("--features", help="Lab features to ask about.", min=5, max=32)
    ] = 16,
    precision: PrecisionOption = None,
    budget: BudgetOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Put a judge before features of the lab whose truth is known, and say what it is worth.

    No model, SAE or corpus is needed. What is found is kept, and --dry-run of explain goes by it.
    Exit code 3 says that the judge does not qualify, or that the budget was spent before the end.

    \b
    Examples:
      safesail judge qualify --judge-model gpt-5-mini --budget 1usd
      safesail judge qualify --judge-url http://localhost:8000/v1 --judge-model qwen3
    """
    from safesail.lab.planted_features import planted_features
    from safesail.pipeline import qualify as run
    from safesail.study import Study

    opened = Study.open(study).with_judge(
        url=judge_url,
        model=judge_model,
        fallback_url=fallback_url,
        fallback_model=fallback_judge,
        language=language,
        precision=precision,
    )
    found = run(opened, planted_features(features), budget=budget, progress=progress)
    if json:
        print_json(found.model_dump() | {"qualifies": found.qualifies})
    else:
        print_qualification(found)
    if not found.qualifies:
        raise typer.Exit(_NOT_QUALIFIED)


def print_qualification(found: Qualification) -> None:
    """The report as a table, then the verdict."""
    say(f"{found.model} at {found.url}, {len(found.features)} features of the lab:")
    print_table(("figure", "value", "what it is"), _lines(found))
    if found.qualifies:
        say("qualifies")
        note("next: safesail explain --dry-run, which now knows what this judge takes")
        return
    for fault in found.faults:
        say(f"does not qualify: {fault}" if found.finished else f"not finished: {fault}")


def _lines(found: Qualification) -> list[tuple[str, str, str]]:
    figures = [
        ("true descriptions", found.discrimination_right, "mean discrimination (AUROC), best 1"),
        ("wrong descriptions", found.discrimination_wrong, "the same, should be chance: 0.5"),
        ("its own", found.discrimination_own, "the same by explanations that it wrote"),
        ("misses", found.misses, "share of active items graded 0 by a true description"),
        ("false alarms", found.false_alarms, "share of silent items graded above 0 by it"),
        ("hard false alarms", found.hard_false_alarms, "of those in which one of its words occurs"),
    ]
    experience = found.experience
    counts = ", ".join(
        f"{value} {name}"
        for name, value in (
            ("refused", found.refused),
            ("unparseable", found.unparseable),
            ("failed", found.failed),
            ("over budget", found.budget),
            ("by the fallback", found.fallback_answers),
        )
        if value
    )
    dollars = "no price known" if found.cost_usd is None else f"{found.cost_usd:.4f} dollars"
    seconds = ", ".join(f"{task} {number(s, 1)}" for task, s in found.seconds.items())
    return [
        *((name, interval(one.value, one.low, one.high), what) for name, one, what in figures),
        (
            "shared errors",
            number(found.shared, 3),
            f"upper guess from {found.shared_features} features: correlation of errors in one "
            f"prompt; variance in prompts of 40 items: {number(found.design_effect, 1)} times",
        ),
        (
            "precise",
            percent(found.precise_share),
            f"of {found.explained} features reached a half-width of {found.precision:g}",
        ),
        (
            "prompts",
            number(experience.prompts if experience else None, 1),
            "mean scoring prompts until then, as far as there are windows",
        ),
        ("tokens", number(found.tokens_per_feature, 0), "mean to explain and score a feature"),
        (
            "answered",
            f"{found.answered} of {found.asked}",
            f"questions{f'; {counts}' if counts else ''}; {found.calls} requests sent now",
        ),
        (
            "spent",
            f"{found.prompt_tokens + found.completion_tokens:,}",
            f"tokens in all, {found.reasoning_tokens:,} of them hidden ({dollars})",
        ),
        ("seconds", seconds or "–", "median time to an answer, by task"),
    ]
