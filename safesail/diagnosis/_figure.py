"""Draw a landscape: what is found where, how deep, how sure, and what concepts share."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from safesail.diagnosis._landscape import ConceptCount, Landscape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_MARKERS = "os^Dv<>P"
_KINDS = (("spread", "#0072B2"), ("undecided", "#BBBBBB"), ("entity_like", "#E69F00"))
_LIGHT_TEXT_FROM = 0.6
_DIGITS_FIT = 12
"""Up to so many columns, numbers fit into the squares of a matrix."""


def plot_landscape(found: Landscape) -> bytes:
    """A PNG with five panels, concepts without a parent only.

    Well explained features by SAE and concept; median discrimination; depth profile; overlap of
    concepts; features that peak at one token type.
    """
    # The object interface needs no display and leaves the caller's pyplot state alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = found.top_level
    height = max(3.2, 0.32 * len(names) + 1.6)
    figure = Figure(figsize=(14, 2 * height), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, squeeze=False).flat
    matrix, median = upper.subplots(1, 2, sharey=True)
    depth, overlap, kinds = lower.subplots(1, 3)
    _draw_counts(matrix, found)
    _draw_medians(median, found)
    _draw_depths(depth, found)
    _draw_overlaps(overlap, found)
    _draw_kinds(kinds, found)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _at(found: Landscape, sae: str, concept: str) -> ConceptCount:
    return next(one for one in found.counts if (one.sae, one.concept) == (sae, concept))


def _label(found: Landscape, sae: str) -> str:
    layer = next(one.layer for one in found.counts if one.sae == sae)
    return f"{layer}: {sae}"


def _draw_counts(panel: Axes, found: Landscape) -> None:
    cells = [[_at(found, sae, c) for sae in found.saes] for c in found.top_level]
    values = np.array([[one.well for one in row] for row in cells], dtype=float)
    texts = [[f"{one.well}/{one.explained}" for one in row] for row in cells]
    _matrix(panel, values, texts, max(1.0, values.max(initial=0)))
    panel.set_xticks(range(len(found.saes)), [_label(found, sae) for sae in found.saes])
    panel.tick_params(axis="x", labelrotation=20, labelsize=8)
    panel.set_yticks(range(len(found.top_level)), found.top_level)
    panel.set_title(
        f"well explained of explained features\n(discrimination surely above {found.bar:g})",
        fontsize=10,
    )


def _draw_medians(panel: Axes, found: Landscape) -> None:
    several = len(found.saes)
    for number, sae in enumerate(found.saes):
        ones = [_at(found, sae, concept) for concept in found.top_level]
        places = [row + 0.6 * (number + 0.5) / several - 0.3 for row in range(len(ones))]
        drawn = [(place, one) for place, one in zip(places, ones, strict=True) if one.median]
        values = np.array([one.median for _, one in drawn], dtype=float)
        ends = np.array(
            [[one.median_low or one.median, one.median_high or one.median] for _, one in drawn],
            dtype=float,
        ).reshape(-1, 2)
        panel.errorbar(
            values, [place for place, _ in drawn],
            xerr=np.abs(ends.T - values), fmt=_MARKERS[number % len(_MARKERS)], linestyle="none",
            color=_COLOURS[number % len(_COLOURS)], capsize=2, markersize=5,
            label=_label(found, sae),
        )  # fmt: skip
    panel.axvline(found.bar, color="0.7", linewidth=1, linestyle="--")
    panel.axvline(0.5, color="0.85", linewidth=1)
    panel.set_xlim(0.4, 1.0)
    panel.set_title("median discrimination, 95 % interval over features", fontsize=10)
    panel.set_xlabel(f"AUROC; chance 0.5, bar {found.bar:g}", fontsize=9)
    if several > 1:
        panel.legend(fontsize=7, frameon=False, loc="lower left")


def _draw_depths(panel: Axes, found: Landscape) -> None:
    if len({one.layer for one in found.depths}) < 2:
        panel.set_axis_off()
        panel.text(0.5, 0.5, "depth profile: one layer only,\nnothing to compare", ha="center")
        return
    for number, concept in enumerate(found.top_level):
        mine = [one for one in found.depths if one.concept == concept and one.share is not None]
        if not mine:
            continue
        shift = (number - len(found.top_level) / 2) * 0.012
        x = [(one.layer if one.depth is None else one.depth + shift) for one in mine]
        values = np.array([one.share for one in mine], dtype=float)
        ends = np.array([[one.low, one.high] for one in mine], dtype=float).T
        panel.errorbar(
            x, values, yerr=np.abs(ends - values), fmt=_MARKERS[number % len(_MARKERS)],
            linestyle="-", linewidth=0.8, color=_COLOURS[number % len(_COLOURS)], capsize=2,
            markersize=4, label=concept,
        )  # fmt: skip
    panel.set_ylim(-0.03, 1.03)
    if found.layers is not None:
        panel.set_xlim(-0.05, 1.05)
    panel.set_xlabel(
        "layer" if found.layers is None else "depth: 0 first block, 1 last", fontsize=9
    )
    panel.set_title("share of a concept's well explained features", fontsize=10)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7, frameon=False, ncols=2)


def _draw_overlaps(panel: Axes, found: Landscape) -> None:
    names = found.top_level
    values = np.full((len(names), len(names)), math.nan)
    texts = [[""] * len(names) for _ in names]
    for one in found.overlaps:
        row, column = names.index(one.second), names.index(one.first)
        values[row, column] = 0.0 if one.jaccard is None else one.jaccard
        texts[row][column] = str(one.shared)
    _matrix(panel, values, texts, max(0.01, float(np.nanmax(values, initial=0.0))))
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="x", labelrotation=45, labelsize=8)
    panel.tick_params(axis="y", labelsize=8)
    panel.set_title("features called for both\n(shade: Jaccard)", fontsize=10)


def _draw_kinds(panel: Axes, found: Landscape) -> None:
    names = found.top_level
    left = np.zeros(len(names))
    for kind, colour in _KINDS:
        widths = np.array(
            [sum(getattr(_at(found, sae, c), kind) for sae in found.saes) for c in names],
            dtype=float,
        )
        label = kind.replace("_", "-")
        panel.barh(range(len(names)), widths, left=left, color=colour, label=label)
        left += widths
    panel.set_yticks(range(len(names)), names)
    panel.tick_params(axis="y", labelsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("called features", fontsize=9)
    panel.set_title("windows peak at one token type, or many", fontsize=10)
    panel.legend(fontsize=7, frameon=False)


def _matrix(panel: Axes, values: np.ndarray, texts: list[list[str]], most: float) -> None:
    panel.imshow(values, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    if values.shape[1] > _DIGITS_FIT:
        return
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            light = values[row, column] > _LIGHT_TEXT_FROM * most
            panel.text(
                column, row, text, ha="center", va="center", fontsize=8,
                color="white" if light else "black",
            )  # fmt: skip
