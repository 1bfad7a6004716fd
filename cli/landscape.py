"""`safesail landscape`: explained features over concepts and layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import interval, note, print_json, print_table, say

if TYPE_CHECKING:
    from safesail.diagnosis import Landscape

_OVERLAPS_SHOWN = 10


def landscape(
    study: StudyOption = Path(),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="PNG file; by default landscape.png in the study."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Sum up what is explained: per layer and concept, by depth, overlap and kind of feature.

    Reads the study's tables; no model is loaded.

    \b
    Examples:
      safesail landscape
      safesail landscape --output figure.png
      safesail landscape --json
    """
    from safesail.diagnosis import plot_landscape
    from safesail.pipeline import landscape
    from safesail.study import Study
    from safesail.tables import write_bytes

    opened = Study.open(study)
    found = landscape(opened)
    path = output or opened.folder / "landscape.png"
    write_bytes(path, plot_landscape(found))
    if json:
        print_json(found.to_json())
    else:
        _print(found)
    note(f"written: {path}")


def _print(found: Landscape) -> None:
    shown = [one for one in found.counts if one.concept in found.top_level]
    say(f"Explained features by SAE and concept (explained by: {', '.join(found.explained_by)}):")
    print_table(
        [
            "layer", "SAE", "concept", "chosen", "called", "explained", "scored", "well",
            "median discrimination", "entity-like", "spread",
        ],
        [
            [
                str(one.layer), one.sae, one.concept, *_numbers(one.chosen, one.called),
                *_numbers(one.explained, one.scored, one.well),
                interval(one.median, one.median_low, one.median_high),
                *_numbers(one.entity_like, one.spread),
            ]
            for one in shown
        ],
        numbers=(0, 3, 4, 5, 6, 7, 8, 9, 10),
    )  # fmt: skip
    if len({one.layer for one in shown}) > 1:
        say("Share of a concept's well explained features by layer:")
        print_table(
            ["concept", "layer", "depth", "well", "scored", "share"],
            [
                [
                    one.concept, str(one.layer), "–" if one.depth is None else f"{one.depth:.2f}",
                    *_numbers(one.well, one.scored), interval(one.share, one.low, one.high),
                ]
                for one in found.depths
            ],
            numbers=(1, 2, 3, 4, 5),
        )  # fmt: skip
    shared = sorted((one for one in found.overlaps if one.shared), key=lambda one: -one.shared)
    if shared:
        say("Features called for two concepts:")
        print_table(
            ["concepts", "shared", "either", "Jaccard"],
            [
                [f"{one.first}, {one.second}", *_numbers(one.shared, one.either),
                 f"{one.jaccard:.2f}"]
                for one in shared[:_OVERLAPS_SHOWN]
            ],
            numbers=(1, 2, 3),
        )  # fmt: skip
    if len(shared) > _OVERLAPS_SHOWN:
        say(f"The {_OVERLAPS_SHOWN} largest of {len(shared)}; --json has all.")
    note(
        f"well: the lower end of discrimination's interval lies above {found.bar:g} (our bar); of "
        "called features\n"
        "median: over scored features, with its 95 % interval over them\n"
        "entity-like, spread: of called features, those whose active windows peak at one token "
        "type in surely more, or less, than half; the others are undecided"
    )


def _numbers(*values: int) -> list[str]:
    return [f"{value:,}" for value in values]
