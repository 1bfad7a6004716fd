"""Active windows worth keeping: the strongest, and a uniform sample of every bin of peaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch import Tensor

from safesail.contexts._bins import SAMPLING_BINS, sampling_bins_of
from safesail.contexts._hashing import LARGEST
from safesail.contexts._windows import SPLITS, WINDOW_TOKENS

# What a sparse array is made of.
_SPARSE = ("data", "indices", "indptr")


@dataclass(frozen=True)
class ActiveRows:
    """Windows of features, one row for each window and feature.

    Attributes:
        feature: place of the feature among those observed, int32 [n].
        split: 0 for `explain`, 1 for `score`, int8 [n].
        priority: the window's random number for this feature, int64 [n].
        peak: largest activation, above zero, float32 [n].
        window: the window's key, int64 [n].
        activations: at each place of the window, where above zero: float32 [n, 32], sparse, as
            most places of most windows hold none.
    """

    feature: NDArray[np.int32]
    split: NDArray[np.int8]
    priority: NDArray[np.int64]
    peak: NDArray[np.float32]
    window: NDArray[np.int64]
    activations: csr_array

    def __len__(self) -> int:
        return len(self.feature)

    @classmethod
    def empty(cls) -> ActiveRows:
        """No rows."""
        return cls(
            np.empty(0, dtype=np.int32),
            np.empty(0, dtype=np.int8),
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.float32),
            np.empty(0, dtype=np.int64),
            csr_array((0, WINDOW_TOKENS), dtype=np.float32),
        )

    @classmethod
    def joined(cls, parts: list[ActiveRows]) -> ActiveRows:
        """All rows of some, in turn."""
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "activations"
        }
        return cls(**columns, activations=vstack([p.activations for p in parts], format="csr"))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> ActiveRows:
        """Rows from what `arrays` gave."""
        sparse = [arrays[name] for name in _SPARSE]
        shape = (len(sparse[2]) - 1, WINDOW_TOKENS)
        columns = {f.name: arrays[f.name] for f in fields(cls) if f.name != "activations"}
        return cls(**columns, activations=csr_array(tuple(sparse), shape=shape))

    def arrays(self) -> dict[str, NDArray]:
        """The rows as arrays by name."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "activations"},
            **{name: getattr(self.activations, name) for name in _SPARSE},
        }

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> ActiveRows:
        """Some of the rows."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @cached_property
    def group(self) -> NDArray[np.int64]:
        """Number of each row's feature and split."""
        return self.feature.astype(np.int64) * len(SPLITS) + self.split

    @cached_property
    def sampling_bin(self) -> NDArray[np.int64]:
        """Bin of each row's peak."""
        found: NDArray[np.int64] = sampling_bins_of(torch.from_numpy(self.peak)).numpy()
        return found


class ActiveWindows:
    """What is kept of the windows in which features fire.

    Of every feature and split: the `top` windows of largest peak, and of every sampling bin of
    peaks the `per_bin` windows of smallest priority. What is kept of two parts together is found
    among what is kept of each, so parts can be joined in any order.
    """

    def __init__(self, features: int, *, top: int, per_bin: int, device: str) -> None:
        """Nothing seen yet.

        Args:
            features: how many are observed.
            top: strongest windows kept of each feature and split.
            per_bin: windows kept of each feature, split and sampling bin.
            device: where windows are looked through.
        """
        self._groups = features * len(SPLITS)
        self._top = top
        self._per_bin = per_bin
        self._device = device
        self._parts = [ActiveRows.empty()]
        self._set_limits(
            np.zeros(self._groups, dtype=np.float32),
            np.full(self._groups * SAMPLING_BINS, LARGEST),
        )

    def __len__(self) -> int:
        """Rows held, of which `prune` may drop some."""
        return sum(len(part) for part in self._parts)

    def may_stay(self, group: Tensor, peak: Tensor, priority: Tensor) -> Tensor:
        """Which windows `prune` might keep, by what was kept when it was last called.

        Args:
            group: number of feature and split, int64 [n].
            peak: float32 [n].
            priority: int64 [n].

        Returns:
            bool [n].
        """
        ceiling = self._ceilings[group * SAMPLING_BINS + sampling_bins_of(peak)]
        return (peak >= self._floors[group]) | (priority <= ceiling)

    def add(self, rows: ActiveRows) -> None:
        """Take in windows, in any order."""
        self._parts.append(rows)

    def rows(self) -> ActiveRows:
        """What is kept, by feature, split, bin and priority."""
        self.prune()
        return self._parts[0]

    def prune(self) -> None:
        """Drop what can no longer matter."""
        if len(self._parts) == 1:
            return
        parts, self._parts = self._parts, []
        rows = ActiveRows.joined(parts)
        del parts  # what is held twice counts: this is where memory peaks
        by_peak = np.lexsort((rows.priority, -rows.peak, rows.group))
        place = places(rows.group[by_peak])
        is_top = np.zeros(len(rows), dtype=bool)
        is_top[by_peak[place < self._top]] = True
        floors = np.zeros(self._groups, dtype=np.float32)
        weakest = by_peak[place == self._top - 1]
        floors[rows.group[weakest]] = rows.peak[weakest]
        stratum = rows.group * SAMPLING_BINS + rows.sampling_bin
        by_priority = np.lexsort((rows.window, rows.priority, stratum))
        place = places(stratum[by_priority])
        ceilings = np.full(self._groups * SAMPLING_BINS, LARGEST)
        last = by_priority[place == self._per_bin - 1]
        ceilings[stratum[last]] = rows.priority[last]
        kept = by_priority[(place < self._per_bin) | is_top[by_priority]]
        self._parts = [rows.take(kept)]
        self._set_limits(floors, ceilings)

    def _set_limits(self, floors: NDArray[np.float32], ceilings: NDArray[np.int64]) -> None:
        self._floors = torch.from_numpy(floors).to(self._device)
        self._ceilings = torch.from_numpy(ceilings).to(self._device)


def places(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each row within its group, 0 for the first; rows of a group lie together."""
    if not len(groups):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
