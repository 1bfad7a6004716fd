"""Choose the contexts of one feature: strongest, drawn by level, silent, silent but near."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from safesail.contexts._active import ActiveRows
from safesail.contexts._bins import BINS_PER_SAMPLING_BIN, bins_of, edges
from safesail.contexts._hashing import LARGEST, priorities, salt
from safesail.contexts._silent import SilentRows
from safesail.contexts._windows import SPLITS, WINDOW_TOKENS
from safesail.study import CollectionSettings

LEVELS = 10
# Token types whose windows count as near: those on which the feature is strongest on average.
TYPICAL_TOKENS = 10
# Occurrences added to each type's count, so that one lucky token does not lead the list.
_SMOOTHING = 2


@dataclass(frozen=True)
class Choice:
    """Chosen windows of one feature, in the order of the contexts table.

    Attributes:
        split: names of splits, [n].
        kind: `active`, `silent` or `hard_silent`, [n].
        level: tenths of q999 that the peak reaches, 1 to 10; 0 for silent ones, int64 [n].
        sample: `top` or `random`, [n].
        weight: inverse sampling probability; NaN for `top`, float64 [n].
        window: key of each, int64 [n].
        activations: float32 [n, 32], 0 beyond the window's end.
    """

    split: NDArray[np.str_]
    kind: NDArray[np.str_]
    level: NDArray[np.int64]
    sample: NDArray[np.str_]
    weight: NDArray[np.float64]
    window: NDArray[np.int64]
    activations: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.window)

    @classmethod
    def of(
        cls,
        split: int,
        kind: str,
        level: int | NDArray[np.int64],
        sample: str,
        weight: float,
        window: NDArray[np.int64],
        activations: NDArray[np.float32] | None = None,
    ) -> Choice:
        """Windows that share all but their level."""
        count = len(window)
        if activations is None:
            activations = np.zeros((count, WINDOW_TOKENS), dtype=np.float32)
        return cls(
            np.full(count, SPLITS[split]),
            np.full(count, kind),
            np.broadcast_to(level, count),
            np.full(count, sample),
            np.full(count, weight),
            window,
            activations,
        )

    @classmethod
    def joined(cls, parts: list[Choice]) -> Choice:
        """All windows of some choices, in turn."""
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


def level_starts(q999: float) -> NDArray[np.int64]:
    """First bin of levels 2 to 10: tenths of q999, moved to the nearest border of a bin, [9]."""
    borders = edges().astype(np.float64)
    wanted = q999 * np.arange(1, LEVELS) / LEVELS
    above = np.clip(np.searchsorted(borders, wanted), 1, len(borders) - 1)
    below_is_nearer = wanted - borders[above - 1] < borders[above] - wanted
    starts: NDArray[np.int64] = above - below_is_nearer
    return starts


def choose_active(
    rows: ActiveRows,
    split: int,
    histogram: NDArray[np.int32],
    lowest_bin: int,
    starts: NDArray[np.int64],
    per_bin: int,
    settings: CollectionSettings,
) -> list[Choice]:
    """The strongest windows of one feature and split, and a uniform sample of each level.

    A level may take parts of several sampling bins. Of a bin all windows are known whose priority
    is at most that of the last one kept; so of a level all are known up to the smallest such
    priority among its bins, and the first of these are a uniform sample of the level.

    Args:
        rows: what the sketch keeps of them.
        split: 0 for `explain`, 1 for `score`.
        histogram: windows by bin of the peak, [BINS].
        lowest_bin: sampling bin that holds all below it too.
        starts: of `level_starts`.
        per_bin: windows that the sketch keeps of a sampling bin.
        settings: how many of each kind are chosen.
    """
    bins = bins_of(torch.from_numpy(rows.peak)).numpy()
    level = 1 + np.searchsorted(starts, bins, side="right")
    strongest = np.lexsort((rows.priority, -rows.peak))[: settings.top]
    found = [
        Choice.of(
            split, "active", level[strongest], "top", np.nan,
            rows.window[strongest], rows.activations[strongest].toarray(),
        )
    ]  # fmt: skip
    known_to = _known_to(rows, bins, histogram, lowest_bin, per_bin)
    borders = [0, *starts.tolist(), len(histogram)]
    for number in range(1, LEVELS + 1):
        filled = np.flatnonzero(histogram[borders[number - 1] : borders[number]])
        if not len(filled):
            continue
        present = np.maximum((filled + borders[number - 1]) // BINS_PER_SAMPLING_BIN, lowest_bin)
        known = np.flatnonzero((level == number) & (rows.priority <= known_to[present].min()))
        drawn = known[np.argsort(rows.priority[known], kind="stable")][: settings.per_level]
        if not len(drawn):
            continue
        windows = int(histogram[borders[number - 1] : borders[number]].sum())
        found.append(
            Choice.of(
                split, "active", number, "random", windows / len(drawn),
                rows.window[drawn], rows.activations[drawn].toarray(),
            )
        )  # fmt: skip
    return found


def _known_to(
    rows: ActiveRows,
    bins: NDArray[np.int64],
    histogram: NDArray[np.int32],
    lowest_bin: int,
    per_bin: int,
) -> NDArray[np.int64]:
    """Priority up to which all windows of each sampling bin are known, [sampling bins]."""
    count = len(histogram) // BINS_PER_SAMPLING_BIN
    every = np.maximum(np.arange(len(histogram)) // BINS_PER_SAMPLING_BIN, lowest_bin)
    in_all = np.bincount(every, weights=histogram, minlength=count)
    known_to = np.full(count, LARGEST)
    mine = np.maximum(bins // BINS_PER_SAMPLING_BIN, lowest_bin)
    for number in np.unique(mine):
        held = np.sort(rows.priority[mine == number])
        if len(held) < in_all[number]:
            known_to[number] = held[per_bin - 1]
    return known_to


def choose_silent(
    silent: SilentRows,
    split: int,
    windows: int,
    is_near: NDArray[np.bool_],
    feature: int,
    settings: CollectionSettings,
) -> list[Choice]:
    """Uniform samples of the silent windows that are near, and of those that are not.

    Args:
        silent: windows of the sample on which the feature is silent, of one split.
        split: 0 for `explain`, 1 for `score`.
        windows: how many windows of the split it is silent on, in all the corpus.
        is_near: which of `silent` hold a token typical of the feature.
        feature: its index in the SAE; no two features draw alike.
        settings: how many of each kind are chosen.
    """
    priority = priorities(torch.from_numpy(silent.window), salt(feature, settings.seed)).numpy()
    found = []
    for kind, members, count in (
        ("silent", ~is_near, settings.silent),
        ("hard_silent", is_near, settings.hard_silent),
    ):
        stratum = np.flatnonzero(members)
        drawn = stratum[np.argsort(priority[stratum], kind="stable")][:count]
        if len(drawn):
            # Drawn twice: into the sample of all windows, then from those of the stratum in it.
            weight = windows / len(silent) * len(stratum) / len(drawn)
            found.append(Choice.of(split, kind, 0, "random", weight, silent.window[drawn]))
    return found


def typical_tokens(
    token_ids: NDArray[np.int64], activations: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Ten token types with the highest mean activation in a feature's windows, strongest first.

    Args:
        token_ids: of the active windows kept, -1 beyond a window's end, [n, 32].
        activations: [n, 32].
    """
    present = token_ids >= 0
    types, inverse = np.unique(token_ids[present], return_inverse=True)
    totals = np.bincount(inverse, weights=activations[present], minlength=len(types))
    mean = totals / (np.bincount(inverse, minlength=len(types)) + _SMOOTHING)
    strongest = np.argsort(-mean, kind="stable")[:TYPICAL_TOKENS]
    return types[strongest[mean[strongest] > 0]]


class TokenIndex:
    """Which windows hold which token type."""

    def __init__(self, token_ids: NDArray[np.int64]) -> None:
        """Index windows: token ids, -1 beyond a window's end, [n, 32]."""
        window, place = np.nonzero(token_ids >= 0)
        types = token_ids[window, place]
        shape = (int(types.max(initial=-1)) + 1, len(token_ids))
        ones = np.ones(len(types), dtype=np.int32)
        self._windows = csr_array((ones, (types, window)), shape=shape)
        self._count = len(token_ids)

    def holding(self, types: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which windows hold any of some token types, [n]."""
        found = np.zeros(self._count, dtype=bool)
        found[self._windows[types[types < self._windows.shape[0]]].indices] = True
        return found
