"""Which SAEs of many: layers, widths and L0 as ranges, names as patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from safesail.errors import CandidateError

Ranges = tuple[tuple[float, float], ...]
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([km]?)", re.IGNORECASE)
_UNITS = {"": (1, 1, 0), "k": (1_000, 1 << 10, 1), "m": (1_000_000, 1 << 20, 1)}


@dataclass(frozen=True)
class SaeFilter:
    """Conditions that an SAE must meet, all of them; an empty one asks for nothing.

    Attributes:
        layers: ranges of layers, both ends included.
        widths: ranges of numbers of features, both ends included.
        l0: ranges of the L0 that its makers state, both ends included.
        name: pattern with `*` for its name or for `release:sae_id`.
    """

    layers: Ranges = ()
    widths: Ranges = ()
    l0: Ranges = ()
    name: str | None = None

    @classmethod
    def parse(
        cls,
        *,
        layers: str | None = None,
        width: str | None = None,
        l0: str | None = None,
        name: str | None = None,
    ) -> SaeFilter:
        """From what a user writes: `10-14,20` for layers and L0, `16k` or `16k-65k` for widths.

        "16k" means what the field calls so: from 16,000 to below 17 times 1,024.

        Raises:
            CandidateError: not numbers and ranges.
        """
        return cls(_ranges("layers", layers), _ranges("width", width), _ranges("L0", l0), name)

    def admits(
        self,
        *,
        names: tuple[str, ...],
        layer: int | None,
        width: int | None,
        l0: float | None,
        unknown: bool,
    ) -> bool:
        """Whether an SAE meets the conditions; `unknown` answers for what it does not say."""
        conditions = ((self.layers, layer), (self.widths, width), (self.l0, l0))
        fits = all(
            unknown if value is None else any(low <= value <= high for low, high in ranges)
            for ranges, value in conditions
            if ranges
        )
        return fits and (self.name is None or any(fnmatchcase(name, self.name) for name in names))

    def __bool__(self) -> bool:
        return self != SaeFilter()

    def __str__(self) -> str:
        parts = [
            f"{label} {', '.join(_written(low, high) for low, high in ranges)}"
            for label, ranges in (("layer", self.layers), ("width", self.widths), ("L0", self.l0))
            if ranges
        ]
        return " and ".join([*parts, *([f"name {self.name}"] if self.name else [])])


def _ranges(what: str, text: str | None) -> Ranges:
    if text is None:
        return ()
    found = []
    for part in text.split(","):
        ends = [_NUMBER.fullmatch(end.strip()) for end in part.split("-")]
        if len(ends) > 2 or not all(ends):
            raise CandidateError(f"{what} {text!r}: write numbers and ranges, such as 10-14,20")
        low, high = (_bounds(end[1], end[2]) for end in (ends[0], ends[-1]) if end)
        if high[1] < low[0]:
            raise CandidateError(f"{what} {text!r}: the range {part.strip()} runs downwards")
        found.append((low[0], high[1]))
    return tuple(found)


def _bounds(number: str, unit: str) -> tuple[float, float]:
    decimal, binary, spread = _UNITS[unit.lower()]
    return float(number) * decimal, (float(number) + spread) * binary - spread


def _written(low: float, high: float) -> str:
    return f"{low:,.10g}" if low == high else f"{low:,.10g} to {high:,.10g}"
