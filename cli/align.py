"""`safesail align`: an adapter that begins in the span of explained safety features."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from safesail.alignment._names import Route

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
from ._alignment import alignment_json, print_reading, print_subspace
from ._compare import compare
from ._downloads import approval
from ._options import (
    ConceptOption,
    DebugOption,
    JsonOption,
    StudyOption,
    YesOption,
)
from ._output import note, print_json, say


class UncoveredName(StrEnum):
    """What modules without a basis get."""

    LORA = "lora"
    NEAREST = "nearest"
    NONE = "none"


app = typer.Typer(
    help="Turn explained safety features into a LoRA adapter that begins in their span (SAILS).",
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def align(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option("--data", help="JSONL, CSV, Parquet or hub:NAME: prompt, answer, unaligned."),
    ] = None,
    unaligned: UnalignedOption = None,
    benign: BenignOption = None,
    benign_share: BenignShareOption = 0.5,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the adapter; by default adapters/sails."),
    ] = None,
    sae: SaesOption = None,
    from_explanations: FromExplanationsOption = False,
    concept: ConceptOption = None,
    over: OverOption = Over.RESPONSE,
    contrast: ContrastOption = ContrastName.ABS,
    reducer: ReducerOption = ReducerName.WEIGHTED,
    route: Annotated[
        Route, typer.Option("--route", help="sae; others are direct routes and controls.")
    ] = "sae",
    rank: RankOption = 16,
    modules: ModulesOption = "q,k,v,o",
    uncovered: Annotated[
        UncoveredName,
        typer.Option("--uncovered", help="Modules without a basis: plain LoRA, nearest, none."),
    ] = UncoveredName.LORA,
    freeze_basis: Annotated[
        bool, typer.Option("--freeze-basis", help="Train the other factor alone.")
    ] = False,
    steps: StepsOption = 200,
    batch_size: BatchSizeOption = 8,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="The largest.", min=0.0)
    ] = 2e-4,
    max_tokens: MaxTokensOption = 512,
    seed: Annotated[int, typer.Option("--seed", help="Of bases and of the training.", min=0)] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Find the subspace and give advice; train nothing.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an adapter, or begin an interrupted one anew."),
    ] = False,
    study: StudyOption = Path(),
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a LoRA adapter that begins in the span of safety features, and say what shaped it.

    First the subspace is shown, with the explanations of its features, and which route the data
    speak for. The base model stays as it is; the adapter is a plain PEFT folder.

    \b
    Examples:
      safesail align --data safe.jsonl --benign helpful.jsonl --dry-run
      safesail align --data safe.jsonl --benign helpful.jsonl --output adapters/first
      safesail align --data safe.jsonl --from-explanations --concept fraud --rank 8
      safesail align inspect adapters/first
    """
    if context.invoked_subcommand is not None:
        if study != Path():
            raise typer.BadParameter(
                f"give it after {context.invoked_subcommand}", param_hint="--study"
            )
        return
    from safesail.alignment import TrainingOptions, mix, read_examples
    from safesail.pipeline import (
        AdapterSettings,
        find_subspace,
        read_data,
        source_of,
        train_in,
    )
    from safesail.study import Study

    if data is None:
        raise typer.BadParameter("name the file to train on", param_hint="--data")
    settings = subspace_settings(
        rank=rank,
        contrast=contrast,
        reducer=reducer,
        from_explanations=from_explanations,
        concepts=concept,
        over=over,
        max_tokens=max_tokens,
        seed=seed,
        route=route,
    )
    if not learning_rate > 0:
        raise typer.BadParameter("give a positive number", param_hint="--learning-rate")
    opened = Study.open(study)
    folder = output or opened.folder / "adapters" / "sails"
    if not dry_run:
        from safesail.alignment._saving import check_free

        check_free(folder, overwrite=overwrite)
    wanted, both = read_data(
        opened, data, unaligned=unaligned, over=over.value, concepts=concept or ()
    )
    if benign is not None:
        helpful = read_examples(source_of(benign), Path())
        wanted = mix(wanted, helpful, benign_share, seed=seed)
    found = find_subspace(
        opened,
        both,
        saes=sae or (),
        settings=settings,
        route=route,
        modules=names_in(modules),
        approve=approval(yes),
        tell=note,
    )
    if not json:
        print_subspace(found)
    if dry_run:
        if json:
            print_json(alignment_json(found))
        return
    if benign is None:
        note("no benign examples: a model that learns to refuse everything counts as safe")
    found = train_in(
        opened,
        found,
        wanted,
        folder,
        settings=settings,
        adapter=AdapterSettings(
            modules=tuple(names_in(modules)),
            uncovered=uncovered.value,
            frozen=freeze_basis,
        ),
        options=TrainingOptions(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            max_tokens=max_tokens,
            seed=seed,
        ),
        overwrite=overwrite,
    )
    if json:
        print_json(alignment_json(found))
        return
    assert found.trained is not None
    trained = found.trained
    first, last = trained.loss[0].loss, trained.loss[-1].loss
    say(
        f"trained on {trained.examples} examples for {len(trained.loss)} steps in "
        f"{trained.seconds:.0f} s: loss {first:.2f} at first, {last:.2f} in the end"
    )
    if trained.cut or trained.left_out:
        note(
            f"{trained.cut} answers lost their end and {trained.left_out} prompts left no room for "
            f"one within {max_tokens} tokens: a model learns from the former not to end; allow "
            "more with --max-tokens"
        )
    note(f"written: {folder} (adapter, provenance, loss.csv, loss.png, subspace/)")
    note(f"next: safesail evaluate PROMPTS --adapter {folder}, safesail align inspect {folder}")


app.command("compare")(compare)


@app.command("inspect")
def inspect(
    adapter: Annotated[Path, typer.Argument(help="Folder of any plain LoRA adapter.")],
    sae: SaesOption = None,
    top: Annotated[int, typer.Option("--top", help="Features to name a module.", min=1)] = 3,
    study: StudyOption = Path(),
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read an adapter back: how much of what it changes lies along which features.

    \b
    Example:
      safesail align inspect adapters/first --json
    """
    from safesail.pipeline import inspect_in
    from safesail.study import Study

    found = inspect_in(
        Study.open(study), adapter, saes=sae or (), top=top, approve=approval(yes), tell=note
    )
    if json:
        print_json(found.to_json())
    else:
        print_reading(found)
