"""`safesail train-saes`: SAEs of your own model, on your own texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import DebugOption, JsonOption, OverwriteOption, StudyOption
from ._output import note, number, print_json, print_table, progress

if TYPE_CHECKING:
    from safesail.pipeline import Training, TrainingProgress


def train_saes(
    study: StudyOption = Path(),
    layers: Annotated[
        str | None, typer.Option(help="Layers, as 1,2 or 3-6; the middle one by default.")
    ] = None,
    sites: Annotated[
        str,
        typer.Option(
            help="resid_pre, resid_mid, resid_post, mlp_out, attn_out, z (TransformerLens' names)."
        ),
    ] = "resid_post",
    architectures: Annotated[
        str, typer.Option(help="topk, batchtopk, matryoshka, jumprelu, standard, gated.")
    ] = "topk",
    sparsities: Annotated[
        str | None,
        typer.Option(
            help="Active features a token (16,32,64 by default); for standard and gated, L1 "
            "coefficients (0.5,1,2 by default)."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=1, help="Features of each SAE; 8 times what it reads by default."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the corpus to read; corpus.max_tokens by default."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps; by default one pass over the tokens, at least 2,000."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tokens of a step.")] = 1024,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="By default by width: 0.0004 at 16,384 features, more for fewer."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and order.")] = 0,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps that a kill loses at most.")
    ] = 500,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train SAEs on the study's model and corpus; they become candidates of the study.

    Every combination of layers, sites, architectures and sparsities is one SAE, a folder that
    SAELens loads. A killed run goes on where it was. L0, FVU and dead share are taken at
    documents that no SAE was trained on.

    \b
    Examples:
      safesail train-saes --layers 4-6 --sparsities 16,32,64
      safesail train-saes --layers 6 --sites resid_post,mlp_out --architectures topk,jumprelu
    """
    from safesail.pipeline import Sweep
    from safesail.pipeline import train_saes as run
    from safesail.study import Study

    sweep = Sweep(
        layers=_layers(layers),
        sites=_words(sites),
        architectures=_words(architectures),
        sparsities=_numbers(sparsities),
        width=width,
        tokens=tokens,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
    )
    with _bar() as watch:
        training = run(
            Study.open(study),
            sweep,
            overwrite=overwrite,
            checkpoint_every=checkpoint_every,
            progress=progress,
            watch=watch,
            announce=note,
        )
    if json:
        print_json(training.rows)
        return
    print_training(training)
    note(f"written: {training.folder}/ and training.parquet beside it")
    note("next: `safesail rank-saes`, whose candidates they are")


def print_training(training: Training) -> None:
    """One line per SAE of the sweep."""
    print_table(
        ("SAE", "hook point", "architecture", "sparsity", "steps", "loss", "L0", "FVU", "dead",
         "seconds"),
        [
            (
                row["sae"],
                row["hook_point"],
                row["architecture"],
                f"{row['sparsity']:g}",
                f"{row['steps']:,}",
                number(row["loss"]),
                number(row["l0"], 1),
                number(row["fvu"], 3),
                f"{100 * row['dead_share']:.0f} %",
                number(row["seconds"], 0),
            )
            for row in training.rows
        ],
        numbers=range(3, 10),
    )  # fmt: skip
    tokens = sorted({row["heldout_tokens"] for row in training.rows})
    shown = f"{tokens[0]:,}" + (f" to {tokens[-1]:,}" if len(tokens) > 1 else "")
    note(
        f"L0, FVU, dead share and loss are taken at {shown} tokens of documents set aside from "
        "all training."
    )


def _words(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise typer.BadParameter(f"{text!r} names nothing: give words with commas between")
    return found


def _numbers(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 16,32,64") from None


def _layers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    found: list[int] = []
    for word in _words(text):
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise typer.BadParameter(f"{text!r} is no list of layers such as 1,2 or 3-6")
        span = range(int(first), int(last or first) + 1)
        if not span:
            raise typer.BadParameter(f"{word!r} ends before it begins")
        found += span
    return tuple(dict.fromkeys(found))


@contextmanager
def _bar() -> Iterator[Callable[[TrainingProgress], None]]:
    """One bar for the sweep, with the time left; absent where stderr is no terminal."""
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, disable=not sys.stderr.isatty(), file=sys.stderr) as bar:

        def watch(now: TrainingProgress) -> None:
            if bar.total is None:
                # What an earlier run has done took none of this one's time.
                bar.reset(total=now.steps_planned)
                bar.initial = bar.n = now.steps_done
            bar.set_description(f"{now.number}/{now.count} {now.sae}", refresh=False)
            bar.set_postfix(loss=f"{now.loss:.2f}", L0=f"{now.l0:.1f}", refresh=False)
            bar.update(now.steps_done - bar.n)

        yield watch
