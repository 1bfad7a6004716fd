"""Options of `safesail align` and `safesail align compare`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from safesail.pipeline import SubspaceSettings


class Over(StrEnum):
    """What is contrasted."""

    RESPONSE = "response"
    PROMPT = "prompt"
    PAIRS = "pairs"


class ContrastName(StrEnum):
    """How features are ordered."""

    ABS = "abs"
    T = "t"
    RELATIVE = "relative"


class ReducerName(StrEnum):
    """How directions become a basis."""

    WEIGHTED = "weighted"
    PCA80 = "pca80"


UnalignedOption = Annotated[
    str | None,
    typer.Option("--unaligned", help="File of prompts with the answers not wanted."),
]
BenignOption = Annotated[
    str | None, typer.Option("--benign", help="File of benign prompts with good answers.")
]
BenignShareOption = Annotated[
    float, typer.Option("--benign-share", help="Of what is trained on.", min=0.0, max=0.95)
]
SaesOption = Annotated[
    list[str] | None,
    typer.Option("--sae", help="SAE, one a layer; by default those that are explained."),
]
FromExplanationsOption = Annotated[
    bool,
    typer.Option("--from-explanations", help="Only features that explanations give to --concept."),
]
OverOption = Annotated[
    Over, typer.Option("--over", help="Contrast answers, prompts, or the study's pairs.")
]
ContrastOption = Annotated[
    ContrastName, typer.Option("--contrast", help="How features are ordered.")
]
ReducerOption = Annotated[
    ReducerName, typer.Option("--reducer", help="How their directions become a basis.")
]
RankOption = Annotated[int, typer.Option("--rank", help="Directions a layer.", min=1)]
ModulesOption = Annotated[str, typer.Option("--modules", help="Of q, k, v, o, gate, up, down.")]
StepsOption = Annotated[int, typer.Option("--steps", help="Of the optimiser.", min=1)]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", help="Examples in memory at once.", min=1)
]
MaxTokensOption = Annotated[
    int, typer.Option("--max-tokens", help="Of an example; longer answers are cut.", min=2)
]


def subspace_settings(
    *,
    rank: int,
    contrast: ContrastName,
    reducer: ReducerName,
    from_explanations: bool,
    concepts: list[str] | None,
    over: Over,
    max_tokens: int,
    seed: int = 0,
    route: str = "sae",
) -> SubspaceSettings:
    """How a subspace is found, by the options above.

    Raises:
        typer.BadParameter: options that mean nothing together.
    """
    from safesail.pipeline import SubspaceSettings

    if from_explanations and not concepts:
        raise typer.BadParameter(
            "name the concepts with --concept", param_hint="--from-explanations"
        )
    if from_explanations and route not in ("sae", "shuffled_labels"):
        raise typer.BadParameter(
            f"the route {route} chooses no features", param_hint="--from-explanations"
        )
    if concepts and not from_explanations and over is not Over.PAIRS:
        raise typer.BadParameter(
            "say what it chooses: features (--from-explanations) or pairs (--over pairs)",
            param_hint="--concept",
        )
    return SubspaceSettings(
        rank=rank,
        contrast=contrast.value,
        reducer=reducer.value,
        concepts=tuple(concepts or ()) if from_explanations else (),
        max_tokens=max_tokens,
        seed=seed,
    )


def names_in(text: str) -> list[str]:
    """Names separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
