"""Draw a ranking: what each candidate is worth against its L0, one panel per concept."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv<>P"
_ASIDE = 1.03
# Inches: width of the picture, room for the legend above and for the axis' name below.
_ACROSS, _HEAD, _FOOT = 13.5, 1.1, 0.55
_METRICS = (
    ("separating_features", "separating features"),
    ("separation_best", "best separation"),
    ("i_cdf", "I_CDF"),
)
"""Columns that are drawn against L0, each with `_low` and `_high`."""


def curves(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What the picture draws: by concept, and by hook point and architecture, points by L0.

    Each point has sae, l0, fvu, and the drawn metrics with the ends of their 95 % intervals.
    """
    names = [f"{name}{end}" for name, _ in _METRICS for end in ("", "_low", "_high")]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in sorted((r for r in rows if r.get("mean_rank") is not None), key=lambda r: r["l0"]):
        series = f"{row['hook_point']} {row['architecture']}"
        points = found.setdefault(row["concept"], {}).setdefault(series, [])
        points.append({name: row[name] for name in ("sae", "l0", "fvu", *names)})
    return found


def plot_ranking(rows: Sequence[dict[str, Any]], concepts: Sequence[str]) -> bytes:
    """A PNG with one row of panels per concept, one panel per metric.

    A metric often rises and falls again with L0 while the reconstruction error, on the second
    axis, only falls.

    Args:
        rows: rows of the rankings table; those that were not ranked are left out.
        concepts: concepts to draw, in order.
    """
    # The object interface needs no display and leaves the caller's pyplot state alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = curves(rows)
    concepts = [concept for concept in concepts if concept in drawn]
    series = sorted({name for concept in concepts for name in drawn[concept]})
    down = max(1, len(concepts))
    height = 2.4 * down + _HEAD + _FOOT
    figure = Figure(figsize=(_ACROSS, height))
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, len(_METRICS), squeeze=False, sharex=True)
    # Set by hand: a layout engine takes seconds over so many panels with two axes each.
    figure.subplots_adjust(
        left=0.04,
        right=0.95,
        bottom=_FOOT / height,
        top=1 - _HEAD / height,
        hspace=0.35,
        wspace=0.3,
    )
    for line, concept in zip(panels, concepts, strict=False):
        for panel, (metric, title) in zip(line, _METRICS, strict=True):
            _draw(panel, drawn[concept], series, metric)
            panel.set_title(f"{concept}: {title}", fontsize=10)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=4, frameon=False, fontsize=9)
    figure.text(
        0.5, 0.1 / height, "L0: mean active features per content token (log scale)",
        ha="center", fontsize=10,
    )  # fmt: skip
    figure.text(
        0.99, 0.1 / height, ha="right", fontsize=8, color="0.4",
        s="bars: 95 % intervals; grey: FVU, the share of the variance not rebuilt",
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw(
    panel: Axes, drawn: dict[str, list[dict[str, Any]]], series: list[str], metric: str
) -> None:
    second = panel.twinx()
    for number, name in enumerate(series):
        points = drawn.get(name, [])
        if not points:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        # Series of one L0 are drawn side by side.
        l0 = [point["l0"] * _ASIDE ** (number - len(series) / 2) for point in points]
        value, low, high = (
            np.array([point[f"{metric}{end}"] for point in points], dtype=float)
            for end in ("", "_low", "_high")
        )
        panel.errorbar(
            l0, value, yerr=np.nan_to_num([value - low, high - value]),
            fmt=_MARKERS[number % len(_MARKERS)], linestyle="-", linewidth=0.8, color=colour,
            markersize=4, elinewidth=1, capsize=2, label=name,
        )  # fmt: skip
        second.plot(l0, [p["fvu"] for p in points], ":", color="0.6", linewidth=1)
    # Grey stays behind what matters.
    panel.set_zorder(second.get_zorder() + 1)
    panel.patch.set_visible(False)
    panel.set_ylim(bottom=0)
    if metric == "separation_best":
        panel.set_ylim(0, 1.02)
    second.set_ylim(bottom=0)
    second.tick_params(labelsize=7, colors="0.55")
    second.set_ylabel("FVU", fontsize=7, color="0.55")
    _scale(panel, [p["l0"] for points in drawn.values() for p in points])
    panel.tick_params(labelsize=8)


def _scale(panel: Axes, l0: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each power of two that lies among the values."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    panel.set_xscale("log")
    positive = [value for value in l0 if value > 0]
    if positive:
        first, last = np.floor(np.log2(min(positive))), np.ceil(np.log2(max(positive)))
        step = max(1, int(last - first) // 6)
        panel.xaxis.set_major_locator(FixedLocator(list(2.0 ** np.arange(first, last + 1, step))))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(ScalarFormatter())
