"""Draw a ranking: separation and I_CDF against L0, one panel per concept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv<>"


def plot_ranking(rows: Sequence[dict[str, Any]], concepts: Sequence[str]) -> bytes:
    """A PNG with one panel per concept.

    Args:
        rows: ranked rows of the rankings table.
        concepts: concepts to draw, in order.
    """
    # The object interface needs no display and leaves the caller's pyplot state alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranked = [row for row in rows if row.get("mean_rank") is not None]
    hook_points = sorted({row["hook_point"] for row in ranked})
    across = min(4, len(concepts))
    down = -(-len(concepts) // across)
    figure = Figure(figsize=(3.9 * across, 3.1 * down + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False)
    for panel, concept in zip(panels.flat, concepts, strict=False):
        _draw(panel, [row for row in ranked if row["concept"] == concept], hook_points)
        panel.set_title(concept, fontsize=11)
    for panel in panels.flat[len(concepts) :]:
        panel.set_axis_off()
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.supxlabel("L0: mean active features per content token (log scale)", fontsize=10)
    figure.supylabel("separation: cross-fitted average precision, 95 % interval", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _draw(panel: Axes, rows: Sequence[dict[str, Any]], hook_points: Sequence[str]) -> None:
    for number, hook_point in enumerate(hook_points):
        here = sorted((r for r in rows if r["hook_point"] == hook_point), key=lambda r: r["l0"])
        if not here:
            continue
        l0 = [row["l0"] for row in here]
        best = np.array([row["separation_best"] for row in here], dtype=float)
        ends = np.array(
            [[row["separation_best_low"], row["separation_best_high"]] for row in here], dtype=float
        )
        # A resampled interval need not cover its estimate; a bar can not have a negative length.
        bars = np.abs(np.clip([best - ends[:, 0], ends[:, 1] - best], 0, None))
        panel.errorbar(
            l0,
            best,
            yerr=bars,
            fmt=_MARKERS[number % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            markersize=5,
            elinewidth=1,
            capsize=2,
            label=hook_point,
        )
    chance = [row["separation_chance"] for row in rows]
    if chance:
        panel.axhline(chance[0], color="0.6", linewidth=1, linestyle=":", label="chance")
    second = panel.twinx()
    second.plot(
        [row["l0"] for row in rows],
        [row["i_cdf"] for row in rows],
        linestyle="none",
        marker="x",
        markersize=4,
        color="0.65",
    )
    # Grey stays behind what matters.
    panel.set_zorder(second.get_zorder() + 1)
    panel.patch.set_visible(False)
    second.set_ylim(bottom=0)
    second.tick_params(labelsize=7, colors="0.55")
    second.set_ylabel("I_CDF (grey crosses)", fontsize=7, color="0.55")
    _scale(panel, [row["l0"] for row in rows])
    panel.set_ylim(0, 1.02)
    panel.tick_params(labelsize=8)


def _scale(panel: Axes, l0: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each power of two that lies among the values."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    panel.set_xscale("log")
    if l0:
        first, last = np.floor(np.log2(min(l0))), np.ceil(np.log2(max(l0)))
        step = max(1, int(last - first) // 6)
        panel.xaxis.set_major_locator(FixedLocator(list(2.0 ** np.arange(first, last + 1, step))))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(ScalarFormatter())
