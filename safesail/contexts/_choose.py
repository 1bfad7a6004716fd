"""Choose contexts of features: strongest, drawn by level, silent, silent but near."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from safesail.contexts._active import ActiveRows, places
from safesail.contexts._bins import SAMPLING_BINS, sampling_edges
from safesail.contexts._hashing import LARGEST, priorities, salt
from safesail.contexts._windows import SPLITS
from safesail.study import CollectionSettings

LEVELS = 10
# Token types whose windows count as near: those on which the feature is strongest on average.
TYPICAL_TOKENS = 10
# Occurrences added to each type's count, so that one lucky token does not lead the list.
_SMOOTHING = 2


@dataclass(frozen=True)
class Choice:
    """Chosen windows of some features.

    Attributes:
        column: place of the feature among those observed, int64 [n].
        split: names of splits, [n].
        kind: `active`, `silent` or `hard_silent`, [n].
        level: tenths of q999 that the peak reaches, 1 to 10; 0 for silent ones, int64 [n].
        sample: `top` or `random`, [n].
        weight: inverse sampling probability; NaN for `top`, float64 [n].
        window: key of each, int64 [n].
        row: which of the rows that were chosen from; -1 for silent ones, int64 [n].
    """

    column: NDArray[np.int64]
    split: NDArray[np.str_]
    kind: NDArray[np.str_]
    level: NDArray[np.int64]
    sample: NDArray[np.str_]
    weight: NDArray[np.float64]
    window: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.window)

    @classmethod
    def joined(cls, parts: list[Choice]) -> Choice:
        """All windows of some choices by feature, otherwise in turn."""
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        order = np.argsort(columns["column"], kind="stable")
        return cls(**{name: values[order] for name, values in columns.items()})


def level_starts(q999: NDArray[np.float64]) -> NDArray[np.int64]:
    """First sampling bin of levels 2 to 10: tenths of q999, moved to the nearest border, [n, 9]."""
    borders = sampling_edges().astype(np.float64)
    wanted = q999[:, None] * np.arange(1, LEVELS) / LEVELS
    above = np.clip(np.searchsorted(borders, wanted), 1, len(borders) - 1)
    below_is_nearer = wanted - borders[above - 1] < borders[above] - wanted
    starts: NDArray[np.int64] = above - below_is_nearer
    return starts


def choose_active(
    rows: ActiveRows,
    columns: range,
    histogram: NDArray[np.int32],
    q999: NDArray[np.float64],
    per_bin: int,
    settings: CollectionSettings,
) -> Choice:
    """The strongest windows of some features in each split, and a uniform sample of each level.

    A level is made of whole sampling bins. Of a bin all windows are known whose priority is at
    most that of the last one kept; so of a level all are known up to the smallest such priority
    among its bins, at least `per_bin`, and the first of these are a uniform sample of the level.

    Args:
        rows: what the sketch keeps of these features, by feature, split, sampling bin and priority.
        columns: places of the features among those observed, [n].
        histogram: windows by split and sampling bin of the peak, [n, 2, SAMPLING_BINS].
        q999: of each feature, [n].
        per_bin: windows that the sketch keeps of a sampling bin.
        settings: how many of each kind are chosen.
    """
    starts = level_starts(q999)
    by_group = histogram.reshape(-1, SAMPLING_BINS)
    group = rows.group - columns.start * len(SPLITS)
    bins = rows.sampling_bin

    # The same of every bin that holds a window at all.
    of_bin, filled = np.nonzero(by_group)
    windows = by_group[of_bin, filled]
    stratum_of_bin = of_bin * SAMPLING_BINS + filled
    level_of_bin = of_bin * LEVELS + _level(filled, starts[of_bin // len(SPLITS)]) - 1

    stratum = group * SAMPLING_BINS + bins
    held = np.bincount(stratum, minlength=by_group.size)
    last = (places(stratum) == per_bin - 1) & (held < by_group.ravel())[stratum]
    known_to = np.full(by_group.size, LARGEST)
    known_to[stratum[last]] = rows.priority[last]

    count = len(by_group) * LEVELS
    in_level = np.bincount(level_of_bin, weights=windows, minlength=count)
    level_known_to = np.full(count, LARGEST)
    np.minimum.at(level_known_to, level_of_bin, known_to[stratum_of_bin])

    level = _level(bins, starts[group // len(SPLITS)])
    cell = group * LEVELS + level - 1
    known = np.flatnonzero(rows.priority <= level_known_to[cell])
    known = known[np.lexsort((rows.priority[known], cell[known]))]
    drawn = known[places(cell[known]) < settings.per_level]
    per_cell = np.bincount(cell[drawn], minlength=count)

    by_peak = np.lexsort((rows.priority, -rows.peak, group))
    strongest = by_peak[places(group[by_peak]) < settings.top]
    chosen = np.concatenate([strongest, drawn])
    sample = np.repeat(["top", "random"], [len(strongest), len(drawn)])
    weight = np.full(len(chosen), np.nan)
    weight[len(strongest) :] = (in_level / np.maximum(per_cell, 1))[cell[drawn]]
    return Choice(
        rows.feature[chosen].astype(np.int64),
        np.array(SPLITS)[rows.split[chosen]],
        np.full(len(chosen), "active"),
        level[chosen],
        sample,
        weight,
        rows.window[chosen],
        chosen,
    )


def _level(bins: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Level of each bin, [m], by the starts of its feature's levels, [m, 9]."""
    level: NDArray[np.int64] = 1 + (bins[:, None] >= starts).sum(1)
    return level


def choose_silent(
    silent: NDArray[np.int64],
    split: int,
    windows: int,
    is_near: NDArray[np.bool_],
    column: int,
    feature: int,
    settings: CollectionSettings,
) -> list[Choice]:
    """Uniform samples of the silent windows that are near, and of those that are not.

    Args:
        silent: keys of the sample's windows on which the feature is silent, of one split, [n].
        split: 0 for `explain`, 1 for `score`.
        windows: how many windows of the split it is silent on, in all the corpus.
        is_near: which of `silent` hold a token typical of the feature.
        column: place of the feature among those observed.
        feature: its index in the SAE; no two features draw alike.
        settings: how many of each kind are chosen.
    """
    priority = priorities(torch.from_numpy(silent), salt(feature, settings.seed)).numpy()
    found = []
    for kind, members, count in (
        ("silent", ~is_near, settings.silent),
        ("hard_silent", is_near, settings.hard_silent),
    ):
        stratum = np.flatnonzero(members)
        if len(stratum) > count > 0:  # sorting all would take most of the time
            least = np.argpartition(priority[stratum], count - 1)[:count]
        else:
            least = np.arange(min(count, len(stratum)))
        drawn = stratum[least[np.argsort(priority[stratum[least]])]]
        if not len(drawn):
            continue
        found.append(
            Choice(
                np.full(len(drawn), column),
                np.full(len(drawn), SPLITS[split]),
                np.full(len(drawn), kind),
                np.zeros(len(drawn), dtype=np.int64),
                np.full(len(drawn), "random"),
                # Drawn twice: into the sample of all windows, then from its stratum's in it.
                np.full(len(drawn), windows / len(silent) * len(stratum) / len(drawn)),
                silent[drawn],
                np.full(len(drawn), -1),
            )
        )
    return found


def typical_tokens(
    token_ids: NDArray[np.int64], activations: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Ten token types with the highest mean activation in a feature's windows, strongest first.

    Args:
        token_ids: of active windows, -1 beyond a window's end, [n, 32].
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
