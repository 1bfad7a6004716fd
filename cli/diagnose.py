"""`safesail diagnose`: which safety features fire on each token of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._heat import print_heat_map
from ._options import ConceptOption, DebugOption, JsonOption, StudyOption
from ._output import interval, note, number, print_json, print_table, printable, say

if TYPE_CHECKING:
    from safesail.diagnosis import Comparison, Diagnosis, ExplainedFeature, Firing

# In the terminal; --json holds all.
_TOKENS_SHOWN = 40
_FEATURES_SHOWN = 20
_EXPLANATION_WIDTH, _NARROW_EXPLANATION_WIDTH = 60, 46
# What differs by less rounds to nothing.
_DIFFERENT = 0.005
_TEXT_WIDTH = 20


def diagnose(
    text: Annotated[str, typer.Argument(help="The text; - reads it from standard input.")],
    compare: Annotated[
        str | None, typer.Option("--compare", help="A second text to lay beside the first.")
    ] = None,
    study: StudyOption = Path(),
    sae: Annotated[
        str | None, typer.Option("--sae", help="Only this SAE; by default every explained one.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Only SAEs at this layer.", min=0)
    ] = None,
    concept: ConceptOption = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Put it into the chat template as a user's message."),
    ] = False,
    generate: Annotated[
        int,
        typer.Option(
            "--generate", help="Let the model answer first, with at most so many tokens.", min=0
        ),
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option("--temperature", help="Of the answer; 0 takes the likeliest token.", min=0),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the answer's draws.", min=0)] = 0,
    top: Annotated[int, typer.Option("--top", help="Most features shown of a token.", min=1)] = 5,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Smallest strength shown, in q999.", min=0)
    ] = 0.1,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show which explained features fire on each token of a text, over all explained layers.

    Strength is a feature's activation over its q999: at 1 it is as strong as in one of a
    thousand places where it fires.

    \b
    Examples:
      safesail diagnose "They forged the passports."
      safesail diagnose "Tell me about the trial." --chat --generate 40
      safesail diagnose "He shot the guard." --compare "He shot the film."
      cat letter.txt | safesail diagnose - --json
    """
    from safesail.pipeline import Diagnoser
    from safesail.study import Study

    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    diagnoser = Diagnoser(Study.open(study), sae=sae, layer=layer, concepts=tuple(concept or ()))
    options: dict[str, Any] = {
        "chat": chat,
        "generate": generate,
        "temperature": temperature,
        "seed": seed,
    }
    if compare is not None:
        both = diagnoser.compare(text, compare, **options)
        if json:
            print_json(both.to_json(top=top, threshold=threshold))
        else:
            _print_comparison(both, threshold)
        return
    found = diagnoser.diagnose(text, **options)
    if json:
        print_json(found.to_json(top=top, threshold=threshold))
    else:
        _print_diagnosis(found, top, threshold)


def _print_diagnosis(found: Diagnosis, top: int, threshold: float) -> None:
    for layer in found.layers:
        left_out = f", {len(layer.left_out)} without q999 left out" if layer.left_out else ""
        say(f"layer {layer.layer}: {layer.sae}, {len(layer.features)} features{left_out}")
    answer = "".join(printable(t.text) for t in found.tokens if t.part == "answer")
    if found.answer_ended is not None:
        say(f"answer: {answer}{'' if found.answer_ended else ' (cut)'}")
    say()
    print_heat_map(found, threshold)
    fired = {
        token: firings
        for token in range(len(found.tokens))
        if (firings := found.firings(token, top=top, threshold=threshold))
    }
    if not fired:
        say(f"No explained feature reaches a strength of {threshold:g} on any token.")
        return
    strongest = sorted(fired, key=lambda token: -fired[token][0].strength)[:_TOKENS_SHOWN]
    rows = []
    for token in sorted(strongest):
        for place, firing in enumerate(fired[token]):
            rows.append(
                [*(_token_cells(found, token) if place == 0 else ["", ""]), *_cells(firing)]
            )
    headers = ["", "token", "strength", "layer", "feature", "concepts", "discrimination"]
    print_table([*headers, "explanation"], rows, numbers=(0, 2, 3, 4))
    if len(strongest) < len(fired):
        say(f"The {len(strongest)} strongest of {len(fired):,} tokens; --json has all.")
    _print_legend(found)


def _token_cells(found: Diagnosis, token: int) -> list[str]:
    text = _cut(found.tokens[token].text, _TEXT_WIDTH)
    return [str(token), f"{text}{' (answer)' if found.tokens[token].part == 'answer' else ''}"]


def _cells(firing: Firing) -> list[str]:
    feature = firing.feature
    return [
        number(firing.strength),
        str(feature.layer),
        str(feature.feature),
        *_about(feature, _EXPLANATION_WIDTH),
    ]


def _about(feature: ExplainedFeature, width: int) -> list[str]:
    """Concepts, score and explanation."""
    # A child says that its parents are meant too.
    leaves = [
        c for c in feature.concepts if not any(o.startswith(f"{c}/") for o in feature.concepts)
    ]
    score = interval(
        feature.discrimination, feature.discrimination_low, feature.discrimination_high
    )
    explanation = _cut(feature.explanation or f"({feature.status})", width)
    return [", ".join(leaves) or "–", score, explanation]


def _print_comparison(both: Comparison, threshold: float) -> None:
    for name, found in (("first", both.first), ("second", both.second)):
        say(f"{name}: {printable(_cut(found.text, 300))}")
    say()
    rows = [
        [one.concept, number(one.first), number(one.second), f"{one.difference:+.2f}"]
        for one in both.concepts
    ]
    print_table(["concept", "first", "second", "difference"], rows, numbers=(1, 2, 3))
    say()
    shown = [
        one
        for one in both.features
        if max(f.strength for f in (one.first, one.second) if f is not None) >= threshold
        and abs(one.difference) >= _DIFFERENT
    ]
    rows = []
    for one in shown[:_FEATURES_SHOWN]:
        cells = []
        for found, firing in ((both.first, one.first), (both.second, one.second)):
            token = (
                f" {_cut(found.tokens[firing.token].text.strip(), _TEXT_WIDTH)}" if firing else ""
            )
            cells.append(f"{number(firing.strength if firing else 0.0)}{token}")
        about = [
            str(one.feature.layer),
            str(one.feature.feature),
            *_about(one.feature, _NARROW_EXPLANATION_WIDTH),
        ]
        rows.append([f"{one.difference:+.2f}", *cells, *about])
    headers = ["difference", "first", "second", "layer", "feature", "concepts", "discrimination"]
    print_table([*headers, "explanation"], rows, numbers=(0, 3, 4))
    if len(shown) > _FEATURES_SHOWN:
        say(f"The {_FEATURES_SHOWN} largest of {len(shown)} differences; --json has all.")
    note(
        "Largest strengths in each text. Two texts are no sample: what differs here need not "
        "differ between others like them."
    )


def _print_legend(found: Diagnosis) -> None:
    labelled = {feature.labelled_by for layer in found.layers for feature in layer.features}
    whose = {
        "judge": "those the judge assigned",
        "choice": "the one the feature separates best, where it was chosen for it and called",
    }
    note("strength: activation over q999, the 0.999 quantile of the feature's activations above 0")
    note(
        "concepts: "
        + "; else ".join(whose[name] for name in ("judge", "choice") if name in labelled)
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
