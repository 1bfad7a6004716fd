"""A uniform sample of all windows, with the features that are silent on the whole of each.

One sample serves every feature: the windows in it on which a feature is silent are a uniform
sample of all windows on which it is. Which of these are near is asked when all has been seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safesail.contexts._hashing import LARGEST, priorities, salt
from safesail.contexts._windows import SPLITS


@dataclass(frozen=True)
class SilentRows:
    """Windows of the sample.

    Attributes:
        window: key of each, int64 [n].
        split: 0 for `explain`, 1 for `score`, int8 [n].
        priority: random number of the window, the same for all features, int64 [n].
        silent: one bit a feature, set where it is zero throughout, uint8 [n, ceil(features / 8)].
    """

    window: NDArray[np.int64]
    split: NDArray[np.int8]
    priority: NDArray[np.int64]
    silent: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.window)

    @classmethod
    def empty(cls, features: int) -> SilentRows:
        """No windows."""
        return cls(
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.int8),
            np.empty(0, dtype=np.int64),
            np.empty((0, -(-features // 8)), dtype=np.uint8),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> SilentRows:
        """Windows from what `arrays` gave."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def arrays(self) -> dict[str, NDArray]:
        """The windows as arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> SilentRows:
        """Some of the windows."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def of_features(self, columns: range) -> NDArray[np.bool_]:
        """Windows on which the features in consecutive places are silent, [features, n]."""
        first, last = columns.start // 8, -(-columns.stop // 8)
        bits = np.unpackbits(self.silent[:, first:last], axis=1).view(bool)
        begin = columns.start - 8 * first
        return np.ascontiguousarray(bits[:, begin : begin + len(columns)].T)


class SilentSample:
    """The windows of smallest hash, `size` of each split."""

    def __init__(self, features: int, *, size: int, seed: int) -> None:
        """Nothing seen yet."""
        self._size = size
        self._salt = salt("windows", seed)
        self._parts = [SilentRows.empty(features)]
        self._ceilings = np.full(len(SPLITS), LARGEST)

    def look(
        self, keys: NDArray[np.int64], split: NDArray[np.int64], peaks: Tensor
    ) -> NDArray[np.int64]:
        """Take in what may belong to the sample of some windows.

        Args:
            keys: of windows with a content token, [n].
            split: of each, [n].
            peaks: largest activation by window, float32 [n, features].

        Returns:
            Which were taken, [m].
        """
        priority = priorities(torch.from_numpy(keys), self._salt).numpy()
        taken: NDArray[np.int64] = np.flatnonzero(priority <= self._ceilings[split])
        if len(taken):
            silent = (peaks[torch.from_numpy(taken).to(peaks.device)] == 0).cpu().numpy()
            rows = SilentRows(
                keys[taken],
                split[taken].astype(np.int8),
                priority[taken],
                np.packbits(silent, axis=1),
            )
            self.add(rows)
        return taken

    def add(self, rows: SilentRows) -> None:
        """Take in windows, in any order."""
        self._parts.append(rows)
        if sum(map(len, self._parts)) > 2 * len(SPLITS) * self._size:
            self._prune()

    def rows(self) -> SilentRows:
        """The sample, by split and priority."""
        self._prune()
        return self._parts[0]

    def _prune(self) -> None:
        if len(self._parts) == 1:
            return
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in self._parts])
            for field in fields(SilentRows)
        }
        rows = SilentRows(**columns)
        kept = []
        for split in range(len(SPLITS)):
            here = np.flatnonzero(rows.split == split)
            here = here[np.lexsort((rows.window[here], rows.priority[here]))][: self._size]
            if len(here) == self._size:
                self._ceilings[split] = rows.priority[here[-1]]
            kept.append(here)
        self._parts = [rows.take(np.concatenate(kept))]
