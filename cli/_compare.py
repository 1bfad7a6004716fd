"""`safesail align compare`: the SAE route and every control, trained and evaluated alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._align_options import (
    BatchSizeOption,
    BenignOption,
    BenignShareOption,
    ContrastName,
    ContrastOption,
    FromExplanationsOption,
    MaxTokensOption,
    ModulesOption,
    Over,
    OverOption,
    RankOption,
    ReducerName,
    ReducerOption,
    SaesOption,
    StepsOption,
    UnalignedOption,
    names_in,
    subspace_settings,
)
from ._downloads import approval
from ._evaluation import print_figures, print_legend
from ._options import (
    BudgetOption,
    ConceptOption,
    DebugOption,
    FallbackJudgeOption,
    FallbackUrlOption,
    JsonOption,
    JudgeUrlOption,
    StudyOption,
    YesOption,
)
from ._output import note, print_json, progress, say


def compare(
    prompts: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet: prompt, kind (answer).")],
    data: Annotated[str, typer.Option("--data", help="As for `safesail align`.")],
    unaligned: UnalignedOption = None,
    benign: BenignOption = None,
    benign_share: BenignShareOption = 0.5,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Routes and controls, separated by commas; all by default."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each.", min=1)] = 3,
    learning_rates: Annotated[
        str, typer.Option("--learning-rates", help="Tried for each method.")
    ] = "1e-4,3e-4,1e-3",
    sae: SaesOption = None,
    from_explanations: FromExplanationsOption = False,
    concept: ConceptOption = None,
    over: OverOption = Over.RESPONSE,
    contrast: ContrastOption = ContrastName.ABS,
    reducer: ReducerOption = ReducerName.WEIGHTED,
    rank: RankOption = 16,
    modules: ModulesOption = "q,k,v,o",
    steps: StepsOption = 200,
    batch_size: BatchSizeOption = 8,
    max_tokens: MaxTokensOption = 512,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Of an answer.", min=1)
    ] = 256,
    texts: Annotated[
        str | None, typer.Option("--texts", help="File of held-out texts, for perplexity.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; by default comparison/."),
    ] = None,
    judge_url: JudgeUrlOption = None,
    judge_model: Annotated[
        str | None,
        typer.Option("--judge-model", help="Model that grades; without one, refusal rules alone."),
    ] = None,
    fallback_judge: FallbackJudgeOption = None,
    fallback_url: FallbackUrlOption = None,
    budget: BudgetOption = None,
    study: StudyOption = Path(),
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the SAE route and every control alike, and compare them over seeds.

    Equal parameters, steps and initial norm; each method gets the learning rate that is best on a
    third of the prompts, and the table is of the others, paired with plain LoRA. What was trained
    and answered is kept: after a kill, or with more seeds or methods, the same command goes on.

    \b
    Examples:
      safesail align compare prompts.jsonl --data safe.jsonl --benign helpful.jsonl --seeds 5
      safesail align compare prompts.jsonl --data safe.jsonl --methods sae,lora,random
    """
    from safesail.alignment import ComparisonSettings, TrainingOptions, mix, read_examples
    from safesail.pipeline import METHODS, compare_in, comparison_notes, read_data, source_of
    from safesail.study import Study

    settings = subspace_settings(
        rank=rank,
        contrast=contrast,
        reducer=reducer,
        from_explanations=from_explanations,
        concepts=concept,
        over=over,
        max_tokens=max_tokens,
    )
    opened = Study.open(study).with_judge(
        url=judge_url,
        model=judge_model,
        fallback_url=fallback_url,
        fallback_model=fallback_judge,
    )
    wanted, both = read_data(
        opened, data, unaligned=unaligned, over=over.value, concepts=concept or ()
    )
    if benign is not None:
        wanted = mix(wanted, read_examples(source_of(benign), Path()), benign_share)
    folder = output or opened.folder / "comparison"
    if any((folder / name).exists() for name in ("adapter_config.json", "safesail.toml")):
        raise typer.BadParameter(f"{folder} holds something else", param_hint="--output")
    names = names_in(methods) if methods else list(METHODS)
    comparison = ComparisonSettings(
        rank=rank,
        modules=tuple(names_in(modules)),
        options=TrainingOptions(steps=steps, batch_size=batch_size, max_tokens=max_tokens),
        learning_rates=_rates(learning_rates),
        seeds=tuple(range(seeds)),
        max_new_tokens=max_new_tokens,
    )
    found = compare_in(
        opened,
        names,
        both,
        wanted,
        prompts,
        folder,
        saes=sae or (),
        subspace=settings,
        comparison=comparison,
        texts=texts,
        budget=budget,
        approve=approval(yes),
        progress=progress,
        tell=note,
    )
    differences = found.evaluation.differences(found.against)
    if json:
        from safesail.alignment import figure_rows

        print_json(
            {
                "learning_rates": found.learning_rates,
                "diverged": found.diverged,
                "parameters": found.parameters,
                "choosing_prompts": len(found.choosing.prompts) if found.choosing else 0,
                "figures": figure_rows(found.evaluation.figures()),
                "against": found.against,
                "differences": figure_rows(differences),
            }
        )
        return
    print_figures(found.evaluation.figures())
    say(f"less {found.against}, paired by prompt and seed (of perplexity, the ratio):")
    print_figures(differences)
    for line in comparison_notes(found, comparison):
        say(line)
    print_legend(found.evaluation.figures())
    note(f"written: {folder} (evaluation.md, evaluation.json, answers.parquet)")


def _rates(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in names_in(text))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < 1 for rate in found):
        raise typer.BadParameter("give numbers such as 1e-4,1e-3", param_hint="--learning-rates")
    return found
