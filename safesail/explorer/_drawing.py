"""Where things lie in the drawings: numbers for SVG, which the templates write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in units of its drawing."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """Bars of logarithmic height, and what stands below the first and the last."""

    bars: list[Bar]
    low: str
    high: str
    width: int
    height: int


def histogram(
    edges: Sequence[float] | None, counts: Sequence[int] | None, width: int = 320, height: int = 72
) -> Histogram | None:
    """Bars for the bins that hold something; None where there are no counts."""
    if not edges or not counts or not max(counts):
        return None
    step = width / len(counts)
    most = math.log1p(max(counts))
    bars = []
    for place, count in enumerate(counts):
        if not count:
            continue
        tall = max(1.5, height * math.log1p(count) / most)
        title = f"{edges[place]:.3g} to {edges[place + 1]:.3g}: {count:,} tokens"
        bars.append(
            Bar(_r(place * step), _r(height - tall), _r(max(step - 1, 0.8)), _r(tall), title)
        )
    return Histogram(bars, f"{edges[0]:.3g}", f"{edges[-1]:.3g}", width, height)


@dataclass(frozen=True)
class Whisker:
    """An estimate and its interval on a scale from 0 to 100."""

    at: float
    low: float
    high: float


def whisker(
    value: float | None,
    low: float | None,
    high: float | None,
    least: float = 0.0,
    most: float = 1.0,
) -> Whisker | None:
    """Places on a scale; None where there is no finite value."""
    if value is None or not math.isfinite(value) or most <= least:
        return None

    def place(number: float | None) -> float:
        known = value if number is None or not math.isfinite(number) else number
        return _r(100 * min(1.0, max(0.0, (known - least) / (most - least))))

    return Whisker(place(value), place(low), place(high))


@dataclass(frozen=True)
class Point:
    """An SAE in the plot of a ranking."""

    sae: str
    x: float
    y: float
    y_low: float
    y_high: float
    series: int
    title: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """SAEs by L0 and separating features."""

    points: list[Point]
    series: list[str]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    width: int
    height: int


_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 36
_SERIES = 8


def ranking_plot(
    lines: Sequence[dict[str, Any]], width: int = 640, height: int = 300
) -> Plot | None:
    """Separating features with intervals against L0, on a logarithmic axis.

    Args:
        lines: of each SAE `sae`, `series`, `l0`, `value`, `low`, `high`.
        width: of the drawing.
        height: of the drawing.
    """
    lines = [x for x in lines if x["l0"] and x["l0"] > 0 and math.isfinite(x["value"])]
    if not lines:
        return None
    series = list(dict.fromkeys(line["series"] for line in lines))
    exponents = [math.log2(line["l0"]) for line in lines]
    first, last = math.floor(min(exponents)), math.ceil(max(exponents))
    last = max(last, first + 1)
    step = _round_step(max(1.0, *(_known(line["high"], line["value"]) for line in lines)))
    top = step * math.ceil(max(1.0, *(_known(x["high"], x["value"]) for x in lines)) / step)

    def x_of(exponent: float) -> float:
        return _r(_LEFT + (width - _LEFT - _RIGHT) * (exponent - first) / (last - first))

    def y_of(value: float) -> float:
        return _r(height - _BOTTOM - (height - _TOP - _BOTTOM) * value / top)

    points = []
    for line, exponent in zip(lines, exponents, strict=True):
        number = series.index(line["series"])
        low, high = _known(line["low"], line["value"]), _known(line["high"], line["value"])
        points.append(
            Point(
                sae=line["sae"],
                # Series of one L0 are drawn side by side.
                x=_r(x_of(exponent) + 5 * (number - (len(series) - 1) / 2)),
                y=y_of(line["value"]),
                y_low=y_of(max(low, 0)),
                y_high=y_of(high),
                series=number % _SERIES,
                title=f"{line['sae']}: {line['value']:g} [{low:g}, {high:g}], L0 {line['l0']:.1f}",
            )
        )
    stride = max(1, (last - first) // 6)
    x_ticks = [Tick(x_of(e), f"{2.0**e:g}") for e in range(first, last + 1, stride)]
    y_ticks = [Tick(y_of(n * step), f"{n * step:g}") for n in range(round(top / step) + 1)]
    return Plot(points, series, x_ticks, y_ticks, width, height)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not math.isfinite(value) else value


def _round_step(most: float) -> float:
    """A step of 1, 2 or 5 times a power of ten, that makes four to nine of them."""
    magnitude = 10.0 ** math.floor(math.log10(most / 4)) if most > 4 else 1.0
    return next(magnitude * n for n in (1, 2, 5, 10) if most / (magnitude * n) <= 6)


def _r(value: float) -> float:
    return round(value, 1)
