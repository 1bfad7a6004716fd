"""`safesail explain`: what the chosen features mean, and how sure that is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._downloads import approval
from ._options import (
    ConceptOption,
    DebugOption,
    JsonOption,
    LayerOption,
    LimitOption,
    OverwriteOption,
    SaeOption,
    StudyOption,
    YesOption,
)
from ._output import interval, note, print_json, print_table, progress, say
from ._selection import selection

if TYPE_CHECKING:
    from safesail.pipeline import Explanations

_SHOWN = 40


def explain(
    study: StudyOption = Path(),
    sae: SaeOption = None,
    layer: LayerOption = None,
    concept: ConceptOption = None,
    limit: LimitOption = None,
    judge_url: Annotated[
        str | None, typer.Option("--judge-url", help="OpenAI-compatible base URL of the judge.")
    ] = None,
    judge_model: Annotated[
        str | None,
        typer.Option("--judge-model", help="Model at that URL; without one, the lexical baseline."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate the judge's calls and tokens; ask nothing.")
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
      safesail explain --judge-url http://localhost:8000/v1 --judge-model qwen3
    """
    from safesail.errors import JudgeError
    from safesail.pipeline import explain as run
    from safesail.study import Study

    opened = Study.open(study).with_judge(url=judge_url, model=judge_model)
    if judge_url is not None and opened.configuration.judge.model is None:
        raise typer.BadParameter(
            "name the model there with --judge-model", param_hint="--judge-url"
        )
    chosen = selection(sae=sae, layer=layer, concepts=concept, limit=limit)
    found = run(
        opened,
        chosen,
        dry_run=dry_run,
        overwrite=overwrite,
        progress=progress,
        approve=approval(yes),
    )
    if found.estimate is not None:
        if json:
            print_json(vars(found.estimate))
        else:
            say(
                f"{found.sae}: {found.estimate.features} features to explain "
                f"({found.estimate.skipped} without contexts enough): about "
                f"{found.estimate.calls:,} calls, {found.estimate.prompt_tokens:,} prompt tokens "
                f"(characters / 4) and {found.estimate.completion_tokens:,} completion tokens"
            )
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
    explainers = ", ".join(dict.fromkeys(row["judge_model"] or "lexical" for row in found.rows))
    say(f"{found.sae}: {len(found.rows)} features, {counted}; explained by: {explainers}")
