"""Options of `safesail align` and `safesail align compare`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Over(StrEnum):
    """What is contrasted."""

    RESPONSE = "response"
    PROMPT = "prompt"
    PAIRS = "pairs"


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
OverOption = Annotated[
    Over, typer.Option("--over", help="Contrast answers, prompts, or the study's pairs.")
]
RankOption = Annotated[int, typer.Option("--rank", help="Directions a layer.", min=1)]
ModulesOption = Annotated[str, typer.Option("--modules", help="Of q, k, v, o, gate, up, down.")]
StepsOption = Annotated[int, typer.Option("--steps", help="Of the optimiser.", min=1)]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", help="Examples in memory at once.", min=1)
]


def names_in(text: str) -> list[str]:
    """Names separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
