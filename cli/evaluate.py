"""`safesail evaluate`: what a model and its adapters answer, and how safe and useful that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._evaluation import print_figures, print_legend
from ._options import (
    BudgetOption,
    DebugOption,
    FallbackJudgeOption,
    FallbackUrlOption,
    JsonOption,
    JudgeUrlOption,
    StudyOption,
)
from ._output import note, print_json, progress, say

if TYPE_CHECKING:
    from safesail.alignment import Evaluation


def evaluate(
    prompts: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet: prompt, kind (answer).")],
    adapter: Annotated[
        list[Path] | None,
        typer.Option("--adapter", "-a", help="Folder of an adapter; may be given several times."),
    ] = None,
    texts: Annotated[
        str | None, typer.Option("--texts", help="File of held-out texts, for perplexity.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; by default evaluation/."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts at once.", min=1)] = 16,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Of an answer.", min=1)
    ] = 256,
    judge_url: JudgeUrlOption = None,
    judge_model: Annotated[
        str | None,
        typer.Option("--judge-model", help="Model that grades; without one, refusal rules alone."),
    ] = None,
    fallback_judge: FallbackJudgeOption = None,
    fallback_url: FallbackUrlOption = None,
    budget: BudgetOption = None,
    study: StudyOption = Path(),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Have the base and its adapters answer prompts: safety, over-refusal and what was kept.

    Kinds of prompts are harmful, look_alike (benign, but worded like harmful ones) and benign.
    A model that refuses everything is safe and useless, so both figures stand side by side.

    \b
    Examples:
      safesail evaluate prompts.jsonl --adapter adapters/sails
      safesail evaluate prompts.jsonl -a adapters/sails -a adapters/lora --judge-model gpt-5-mini
    """
    from safesail.pipeline import evaluate_in
    from safesail.study import Study

    opened = Study.open(study).with_judge(
        url=judge_url,
        model=judge_model,
        fallback_url=fallback_url,
        fallback_model=fallback_judge,
    )
    folder = output or opened.folder / "evaluation"
    found = evaluate_in(
        opened,
        prompts,
        adapter or [],
        folder,
        texts=texts,
        budget=budget,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    if json:
        from safesail.alignment import figure_rows

        differences = found.differences("base") if adapter else []
        print_json(
            {"figures": figure_rows(found.figures()), "differences": figure_rows(differences)}
        )
    else:
        print_evaluation(found, compared=bool(adapter))
    note(f"written: {folder} (evaluation.md, evaluation.json, answers.parquet)")


def print_evaluation(found: Evaluation, *, compared: bool) -> None:
    """Figures of each system, then their paired differences to the base."""
    print_figures(found.figures())
    if compared:
        say("less the base, paired by prompt (of perplexity, the ratio):")
        print_figures(found.differences("base"))
    print_legend(found.figures())
