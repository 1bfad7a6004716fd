"""`safesail init`: start a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import DebugOption
from ._output import note, say


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new study.")] = Path(),
    model: Annotated[
        str, typer.Option("--model", help="Model folder, or name on the Hugging Face hub.")
    ] = "builtin:lab",
    sae: Annotated[
        list[str] | None,
        typer.Option("--sae", help="SAELens folder or release:sae_id, * allowed; repeatable."),
    ] = None,
    concepts: Annotated[
        list[str] | None,
        typer.Option("--concepts", help="File of contrast pairs, or builtin:starter; repeatable."),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="File of documents: .jsonl .parquet .csv .txt; repeatable."),
    ] = None,
    text_column: Annotated[
        str, typer.Option("--text-column", help="Column of the corpus that holds the text.")
    ] = "text",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing safesail.toml.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Write a commented safesail.toml for a model, with proposals for what you leave out.

    For a model on the hub, candidates come from SAELens' directory and the corpus is a small
    general one, mixed with the concepts' own texts. A model without published SAEs gets none:
    `safesail train-saes` makes them. Paths are written relative to the study.

    \b
    Examples:
      safesail init my-study --model google/gemma-2-2b
      safesail init my-study --model ./my-model --sae './saes/*' --corpus texts.jsonl
    """
    from safesail.pipeline import start_study

    started = start_study(
        folder,
        model=model,
        saes=sae or [],
        concepts=concepts or [],
        corpus=corpus or [],
        text_column=text_column,
        overwrite=overwrite,
    )
    configuration = started.study.configuration
    say(f"written: {started.study.folder / 'safesail.toml'}")
    say(f"  model: {configuration.model.name}")
    say(f"  candidates: {', '.join(configuration.candidates.saes) or 'none yet'}")
    say(f"  concepts: {', '.join(configuration.concepts.files)}")
    sources = [source.path or f"hub {source.hub}" for source in configuration.corpus.sources]
    say(f"  corpus: {', '.join(sources)}")
    for remark in started.remarks:
        note(remark)
    where = "" if folder == Path() else f" --study {folder}"
    note(f"next: edit it, then `safesail doctor{where}` and `safesail rank-saes{where}`")
