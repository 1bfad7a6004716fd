"""`safesail explain`: what the chosen features mean, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._downloads import approval
from ._options import (
    BudgetOption,
    ConceptOption,
    DebugOption,
    FallbackJudgeOption,
    FallbackUrlOption,
    FeaturesOption,
    JsonOption,
    JudgeUrlOption,
    LanguageOption,
    LayerOption,
    LimitOption,
    OverwriteOption,
    PrecisionOption,
    SaeOption,
    StudyOption,
    YesOption,
)
from ._output import interval, note, print_json, print_table, progress, say
from ._selection import selection

if TYPE_CHECKING:
    from safesail.explaining import Estimate
    from safesail.pipeline import Explanations

_SHOWN = 40


class Scorer(StrEnum):
    """Ways to score, as the setting `judge.scorer` names them."""

    items = "items"
    segments = "segments"
    tokens = "tokens"
    detection = "detection"
    fuzzing = "fuzzing"


def explain(
    study: StudyOption = Path(),
    sae: SaeOption = None,
    layer: LayerOption = None,
    concept: ConceptOption = None,
    limit: LimitOption = None,
    features: FeaturesOption = None,
    imported: Annotated[
        str | None,
        typer.Option(
            "--imported",
            metavar="SOURCE",
            help="Score what was imported from there, e.g. neuronpedia:file; explain nothing.",
        ),
    ] = None,
    judge_url: JudgeUrlOption = None,
    judge_model: Annotated[
        str | None,
        typer.Option("--judge-model", help="Model at that URL; without one, the lexical baseline."),
    ] = None,
    fallback_judge: FallbackJudgeOption = None,
    fallback_url: FallbackUrlOption = None,
    language: LanguageOption = None,
    scorer: Annotated[
        Scorer | None,
        typer.Option("--scorer", help="How explanations are scored; items stops when precise."),
    ] = None,
    precision: PrecisionOption = None,
    budget: BudgetOption = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Ask through the provider's Batch API.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate calls, tokens and dollars; ask nothing."),
    ] = False,
    yes: YesOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Explain and score the chosen features, running whatever earlier stage is missing.

    Without a judge model the lexical baseline explains (word statistics, no language model asked).
    The judge's key is read from the environment (OPENAI_API_KEY, or judge.key_variable).

    \b
    Examples:
      safesail explain --layer 12
      safesail explain --concept fraud --limit 50 --judge-model gpt-5-mini --dry-run
      safesail explain --features 579,444
      safesail explain --judge-url http://localhost:8000/v1 --judge-model qwen3
      safesail explain --judge-model gpt-5-mini --fallback-judge gpt-4.1 --budget 5usd
      safesail explain --imported neuronpedia:explanations.jsonl --judge-model gpt-5-mini
    """
    from safesail.errors import JudgeError
    from safesail.pipeline import explain as run
    from safesail.study import Study

    opened = Study.open(study).with_judge(
        url=judge_url,
        model=judge_model,
        fallback_url=fallback_url,
        fallback_model=fallback_judge,
        language=language,
        scorer=scorer,
        precision=precision,
    )
    if judge_url is not None and opened.configuration.judge.model is None:
        raise typer.BadParameter(
            "name the model there with --judge-model", param_hint="--judge-url"
        )
    if opened.configuration.judge.model is None:
        _require_judge(
            imported=imported, budget=budget, batch=batch, fallback=fallback_judge, scorer=scorer
        )
    chosen = selection(sae=sae, layer=layer, concepts=concept, limit=limit, features=features)
    found = run(
        opened,
        chosen,
        imported=imported,
        budget=budget,
        batch=batch,
        dry_run=dry_run,
        overwrite=overwrite,
        progress=progress,
        approve=approval(yes),
        tell=note,
    )
    if found.estimate is not None:
        if json:
            print_json(vars(found.estimate))
        else:
            print_estimate(found.sae, found.estimate)
        return
    if json:
        print_json({"sae": found.sae, "layer": found.layer, "explanations": found.rows})
        return
    print_explanations(found)
    note(f"written: {opened.explanations(found.sae)} and {opened.folder / 'summary.md'}")
    if found.rows and all(row["status"] == "failed" for row in found.rows):
        raise JudgeError(
            f"the judge answered nothing: {found.rows[0]['error']}; run again to ask again"
        )
    note("next: safesail show FEATURE, safesail export --format csv")


def print_explanations(found: Explanations) -> None:
    """The explanations as a table, then how many ended how."""
    from safesail.tables import explained_by

    print_table(
        ("feature", "concept", "correlation", "discrimination", "explanation"),
        [
            (
                str(row["feature"]),
                row["concepts"][0] if row["concepts"] else "–",
                interval(row["correlation"], row["correlation_low"], row["correlation_high"]),
                interval(
                    row["discrimination"], row["discrimination_low"], row["discrimination_high"]
                ),
                row["explanation"] or f"({row['status']}: {row['error']})",
            )
            for row in found.rows[:_SHOWN]
        ],
        numbers=(0,),
    )
    if len(found.rows) > _SHOWN:
        say(f"... and {len(found.rows) - _SHOWN} more")
    statuses = Counter(row["status"] for row in found.rows)
    counted = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    explainers = ", ".join(dict.fromkeys(map(explained_by, found.rows)))
    say(f"{found.sae}: {len(found.rows)} features, {counted}; explained by: {explainers}")
    if any(row["judge_model"] for row in found.rows):
        say(spent(found.rows))


def spent(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the judge took for some rows, now or when its cached answers were paid for."""
    calls = sum(row["calls"] for row in rows)
    prompt = sum(row["prompt_tokens"] for row in rows)
    completion = sum(row["completion_tokens"] for row in rows)
    costs = [row["cost_usd"] for row in rows if row["prompt_tokens"]]
    dollars = f"{sum(costs):.2f} dollars" if costs and None not in costs else "no price known"
    fallback = sum(row["fallback_answers"] or 0 for row in rows)
    by_fallback = f"; {fallback:,} answers by the fallback" if fallback else ""
    return (
        f"judge: {calls:,} requests sent, {prompt:,} prompt and {completion:,} completion tokens "
        f"behind these rows ({dollars}){by_fallback}"
    )


def print_estimate(sae: str, estimate: Estimate) -> None:
    """What a judge would be asked, with its bounds and what that rests on."""
    dollars = "" if estimate.cost_usd is None else f", {estimate.cost_usd:.2f} dollars"
    say(
        f"{sae}: {estimate.features} features to explain ({estimate.skipped} not: dead, without "
        f"contexts enough, or near-duplicates that inherit): about {estimate.calls:,} calls, "
        f"{estimate.prompt_tokens:,} prompt and {estimate.completion_tokens:,} completion "
        f"tokens{dollars}"
    )
    say(
        f"between {estimate.least_tokens:,} tokens if every score is precise at once and "
        f"{estimate.most_tokens:,} if none is before its last prompt"
    )
    say(f"({estimate.basis})")


def _require_judge(**given: object) -> None:
    """Refuse options that say how a judge is asked where there is none."""
    for name, value in given.items():
        if value:
            option = {"fallback": "--fallback-judge"}.get(name, f"--{name}")
            raise typer.BadParameter(
                "there is no judge: name one with --judge-model", param_hint=option
            )
