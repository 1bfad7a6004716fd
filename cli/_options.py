"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _output

StudyOption = Annotated[
    Path, typer.Option("--study", "-s", help="Folder of the study (holds safesail.toml).")
]
LayerOption = Annotated[
    int | None, typer.Option("--layer", help="Only candidates at this layer.", min=0)
]
LayersOption = Annotated[
    str | None,
    typer.Option("--layers", "--layer", help="Only SAEs at these layers, e.g. 10-14,20."),
]
WidthOption = Annotated[
    str | None,
    typer.Option("--width", help="Only SAEs of this many features, e.g. 16k or 16k-65k."),
]
L0Option = Annotated[
    str | None, typer.Option("--l0", help="Only SAEs whose makers state this L0, e.g. 50-100.")
]
SaePatternOption = Annotated[
    str | None,
    typer.Option("--sae", help="Only SAEs of this name or release:sae_id; * matches any text."),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Download published SAEs without asking.")
]
SaeOption = Annotated[
    str | None, typer.Option("--sae", help="Name of the SAE; by default the best ranked.")
]
ConceptOption = Annotated[
    list[str] | None,
    typer.Option("--concept", "-c", help="Only this concept; may be given several times."),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit", "-n", help="At most so many features, from the concepts in turn.", min=1
    ),
]
FeaturesOption = Annotated[
    str | None,
    typer.Option(
        "--features",
        metavar="NUMBERS",
        help="These features, e.g. 579,444, whether a concept chose them or not.",
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Discard results that other settings made.")
]
JudgeUrlOption = Annotated[
    str | None, typer.Option("--judge-url", help="OpenAI-compatible base URL of the judge.")
]
FallbackJudgeOption = Annotated[
    str | None,
    typer.Option("--fallback-judge", help="Model that is asked what the judge refuses."),
]
FallbackUrlOption = Annotated[
    str | None,
    typer.Option("--fallback-url", help="Its base URL; the judge's own by default."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="What the judge may cost: 5usd, or 2e6tokens."),
]
LanguageOption = Annotated[
    str | None, typer.Option("--language", help="Language of the explanations, e.g. zh.")
]
PrecisionOption = Annotated[
    float | None,
    typer.Option(
        "--precision",
        help="Half-width of discrimination's 95 % interval at which scoring stops.",
        min=0.01,
        max=0.49,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the trace of an error.", callback=_output.set_debug, is_eager=True
    ),
]
