"""Windows with true and simulated activations, as arrays that scores are computed from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safesail.explaining._mixture import Stratum

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Windows as arrays.

    Attributes:
        true: per window its true activations, shape (tokens,) (or whatever was predicted).
        simulated: their predictions, of the same shapes.
        weights: per window, summing to 1.
        strata: per window; its kind says whether it is active.
        documents: per window.
        scale: span of the predictions that the judge could give; their own where None.
        added: how many windows at the end are added in thought, and how much of one each is.
    """

    true: list[Floats]
    simulated: list[Floats]
    weights: Floats
    strata: list[Stratum]
    documents: list[str]
    scale: tuple[float, float] | None = None
    added: tuple[int, float] = (0, 1.0)

    @property
    def active(self) -> NDArray[np.bool_]:
        return np.array([kind == "active" for kind, _ in self.strata])

    @property
    def peaks(self) -> Floats:
        return np.array([max(one, default=0.0) for one in self.simulated])

    def with_more(self, *, hits: int, mistakes: int, size: float = 1.0) -> Sample:
        """The same with pairs of an active and a silent window more, at their sides' mean weight.

        The active one is the sampled one of median peak. In hits it is predicted in proportion to
        the truth and the silent one as silent; in mistakes it is the other way round, a missed
        window and a false alarm.

        Args:
            hits: so many pairs of the one kind.
            mistakes: and so many of the other.
            size: how much of a window each is.
        """
        active = np.flatnonzero(self.active)
        order = np.argsort([self.true[index].max() for index in active], kind="stable")
        typical = self.true[active[order[len(order) // 2]]]
        values = np.concatenate(self.simulated)
        lowest, highest = self.scale or (float(values.min()), float(values.max()))
        quiet = np.full(len(typical), lowest)
        strongest = max(float(one.max()) for one in self.true) or 1.0
        loud = quiet + (highest - lowest) * typical / strongest
        pairs = hits + mistakes
        added = [size * float(self.weights[s].mean()) for s in (self.active, ~self.active)] * pairs
        weights = np.array([*self.weights, *added])
        # Strata and documents of their own: they are no part of any sample.
        numbers = range(pairs)
        return Sample(
            [*self.true, *[typical, np.zeros(len(typical))] * pairs],
            [*self.simulated, *[loud, quiet] * hits, *[quiet, loud] * mistakes],
            weights / weights.sum(),
            self.strata + [(kind, -1 - n) for n in numbers for kind in ("active", "silent")],
            self.documents + [f"added {number}" for number in range(2 * pairs)],
            self.scale,
            (2 * pairs, size),
        )


def centred(influence: Floats, strata: Sequence[Stratum], weights: Floats) -> Floats:
    """Contributions less their strata's weighted means; those of single windows as they are."""
    residual = influence.copy()
    for indices in members_of(strata).values():
        if len(indices) > 1:  # a single window has no mean to vary about
            share = weights[indices] / weights[indices].sum()
            residual[indices] -= share * influence[indices].sum()
    return residual


def members_of(strata: Sequence[Stratum]) -> dict[Stratum, list[int]]:
    """Which windows are of each stratum."""
    members: dict[Stratum, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[stratum].append(index)
    return members
