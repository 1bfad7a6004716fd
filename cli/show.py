"""`safesail show`: one feature in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import interval, number, print_json, printable, say

if TYPE_CHECKING:
    from rich.text import Text

    from safesail.tables import Context

_BAR_WIDTH = 40
_STRONGEST_SHOWN = 8
_SILENT_SHOWN = 3
# Levels from which a token is shown stronger.
_MIDDLE, _STRONG = 4, 8


def show(
    feature: Annotated[int, typer.Argument(help="Index of the feature.", min=0)],
    sae: Annotated[
        str | None,
        typer.Option("--sae", help="Name of the SAE; needed once several have contexts."),
    ] = None,
    study: StudyOption = Path(),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one feature: explanation, score, histogram, contexts with highlighted tokens.

    \b
    Examples:
      safesail show 123
      safesail show 123 --sae layer2-resid-topk16
    """
    from safesail.pipeline import load_feature
    from safesail.study import Study

    found = load_feature(Study.open(study), feature, sae)
    if json:
        print_json(
            {
                "features": found.rows,
                "explanations": found.explanations,
                "corrections": [one.model_dump(mode="json") for one in found.corrections],
                "contexts": [vars(context) for context in found.contexts],
            }
        )
        return
    row = (found.rows or found.explanations)[0]
    status = row["status"] if found.rows else "not chosen"
    say(f"feature {feature} of {row['sae']} (layer {row['layer']}, {status})")
    for explanation in found.explanations:
        _print_explanation(explanation)
    for one in found.corrections:
        text = one.value if isinstance(one.value, str) else ", ".join(one.value) or "no concept"
        say(f"  [{one.field} corrected by {printable(one.author)}] {printable(text)}")
    for each in found.rows:
        if each["concept"] is None:
            say("  no concept: collected by its number")
            continue
        say(
            f"  {each['concept']}: distinguishes "
            f"{interval(each['f'], each['f_low'], each['f_high'])} of pairs, "
            f"separation {number(each['separation'])}, specificity {number(each['specificity'])}"
        )
    if found.rows:
        _print_statistics(row)
    _print_contexts(found.contexts)


def _print_statistics(row: dict[str, Any]) -> None:
    if row["fired"]:
        say(
            f"  fires on {row['fired']:,} of {row['tokens_seen']:,} tokens "
            f"({100 * row['density']:.2f} %), max {number(row['max_activation'])}, "
            f"q999 {number(row['q999'])}"
        )
        _print_histogram(row)
    if row["top_logits"]:
        say("  raises: " + " ".join(printable(token) for token in row["top_logits"]))
        say("  lowers: " + " ".join(printable(token) for token in row["bottom_logits"]))
    if row["nearest_features"]:
        say("  nearest features: " + ", ".join(map(str, row["nearest_features"])))


def _print_explanation(row: dict[str, Any]) -> None:
    from safesail.tables import explained_by

    by = explained_by(row)
    text = row["explanation"] or f"(no explanation: {row['status']})"
    say(f"  [{printable(by)}] {printable(text)}")
    if row["status"] == "scored":
        say(
            "    correlation "
            + interval(row["correlation"], row["correlation_low"], row["correlation_high"])
            + ", discrimination "
            + interval(row["discrimination"], row["discrimination_low"], row["discrimination_high"])
            + f" ({row['observations']} held-out windows)"
        )
    elif row["status"] == "imported":
        _print_imported(row)
    elif row["error"]:
        say(f"    {row['status']}: {printable(row['error'])}")


def _print_imported(row: dict[str, Any]) -> None:
    """What came with an imported explanation."""
    import json

    if row["correlation"] is not None:
        say(f"    correlation {number(row['correlation'])}, as its file states it")
    for score in json.loads(row["imported_scores"] or "[]"):
        say(f"    {printable(score['type'])} {number(score['value'])}")
    if row["tags"]:
        say("    tags: " + ", ".join(map(printable, row["tags"])))


def _print_histogram(row: dict[str, Any]) -> None:
    say("  activations:")
    edges, counts = row["histogram_edges"], row["histogram_counts"]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        bar = "█" * round(_BAR_WIDTH * count / max(counts))
        say(f"    {low:9.3g} to {high:<9.3g} {count:8,d} {bar}")


def _print_contexts(contexts: list[Context]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    drawn = [c for c in contexts if c.sample == "random" and c.kind == "active"]
    one_per_level = {c.level: c for c in drawn}
    groups = {
        "strongest contexts": _distinct(
            sorted((c for c in contexts if c.sample == "top"), key=lambda c: -c.peak)
        )[:_STRONGEST_SHOWN],
        "one drawn from each level": [one_per_level[v] for v in sorted(one_per_level)[::-1]],
        "silent though its words occur": [c for c in contexts if c.kind == "hard_silent"][
            :_SILENT_SHOWN
        ],
        "silent": [c for c in contexts if c.kind == "silent"][:_SILENT_SHOWN],
    }
    for title, members in groups.items():
        if members:
            say(f"  {title}:")
        for context in members:
            console.print(f"    {context.level:2d} ", _highlighted(context), sep="")


def _distinct(contexts: list[Context]) -> list[Context]:
    """Contexts whose text has not been shown yet."""
    return list({"".join(context.tokens): context for context in reversed(contexts)}.values())[::-1]


def _highlighted(context: Context) -> Text:
    """The context's text, each token coloured by its share of the peak."""
    from rich.text import Text

    text = Text()
    for token, activation in zip(context.tokens, context.activations, strict=True):
        share = activation / context.peak if context.peak > 0 else 0.0
        level = round(10 * share)
        style = ""
        if share > 0:
            style = "underline" if level < _MIDDLE else "reverse"
        if level >= _STRONG:
            style = "bold reverse"
        shown = printable(token)
        # Where colours are off, brackets still tell where the feature peaks.
        text.append(f"«{shown}»" if level >= _STRONG else shown, style=style)
    return text
