"""Choose the contexts of one feature: strongest, drawn by level, silent, silent but near."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from safesail.contexts._windows import SPLITS, Windows
from safesail.study import CollectionSettings

# Token types whose windows count as near: those on which the feature is strongest on average.
TYPICAL_TOKENS = 10
# Occurrences added to each type's count, so that one lucky token does not lead the list.
_SMOOTHING = 5


@dataclass(frozen=True)
class Choice:
    """One chosen window; fields as in the contexts table."""

    window: int
    split: str
    kind: str
    level: int
    sample: str
    peak: float
    weight: float


def window_peaks(
    windows: Windows, tokens: NDArray[np.integer], values: NDArray[np.floating]
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """Windows in which a feature fires and its largest activation in each.

    Args:
        windows: all windows.
        tokens: ascending numbers of the tokens at which it fires.
        values: its activation at each.
    """
    if not len(tokens):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    owners = windows.of_token[tokens]
    starts = np.flatnonzero(np.append(True, owners[1:] != owners[:-1]))
    return owners[starts], np.maximum.reduceat(values, starts)


def levels(peaks: NDArray[np.floating], q999: float) -> NDArray[np.integer]:
    """Tenths of q999 that peaks reach, 1 to 10."""
    return np.clip(np.ceil(10 * peaks / q999), 1, 10).astype(int)


def choose(
    windows: Windows,
    active: NDArray[np.integer],
    peaks: NDArray[np.floating],
    near: NDArray[np.integer],
    q999: float,
    priorities: NDArray[np.uint64],
    settings: CollectionSettings,
) -> Iterator[Choice]:
    """Choose a feature's contexts in both splits.

    Args:
        windows: all windows.
        active: windows in which the feature fires, [A].
        peaks: its peak in each, [A].
        near: windows that hold a token typical of the feature; active ones may be among them.
        q999: 0.999 quantile of its non-zero activations.
        priorities: a random number per window, [W].
        settings: how many of each kind.
    """
    level = levels(peaks, q999)
    is_active = np.zeros(len(windows.text), dtype=bool)
    is_active[active] = True
    is_near = np.zeros(len(windows.text), dtype=bool)
    is_near[near] = True
    for number, split in enumerate(SPLITS):
        here = np.flatnonzero(windows.split[active] == number)
        strongest = np.lexsort((priorities[active[here]], -peaks[here]))
        for place in here[strongest][: settings.top]:
            yield Choice(
                int(active[place]), split, "active", int(level[place]), "top",
                float(peaks[place]), float("nan"),
            )  # fmt: skip
        for value in range(1, 11):
            stratum = here[level[here] == value]
            drawn = stratum[np.argsort(priorities[active[stratum]])][: settings.per_level]
            for place in drawn:
                yield Choice(
                    int(active[place]), split, "active", value, "random",
                    float(peaks[place]), len(stratum) / len(drawn),
                )  # fmt: skip
        silent = (windows.split == number) & ~is_active
        for kind, members, count in (
            ("silent", silent & ~is_near, settings.silent),
            ("hard_silent", silent & is_near, settings.hard_silent),
        ):
            stratum = np.flatnonzero(members)
            drawn = stratum[np.argsort(priorities[stratum])][:count]
            for window in drawn:
                weight = len(stratum) / len(drawn)
                yield Choice(int(window), split, kind, 0, "random", 0.0, weight)


class TypicalTokens:
    """Finds windows that hold the tokens a feature is strongest on."""

    def __init__(self, windows: Windows, token_ids: NDArray[np.integer]) -> None:
        """Index the corpus: which windows hold which token type."""
        self._token_ids = token_ids
        self._counts = np.bincount(token_ids)
        ones = np.ones(len(token_ids), dtype=np.int32)
        shape = (len(self._counts), len(windows.text))
        self._windows = csr_array((ones, (token_ids, windows.of_token)), shape=shape)

    def windows_near(
        self, tokens: NDArray[np.integer], values: NDArray[np.floating]
    ) -> NDArray[np.integer]:
        """Windows with any of the feature's ten token types of highest mean activation.

        Args:
            tokens: numbers of the tokens at which the feature fires.
            values: its activation at each.
        """
        types, inverse = np.unique(self._token_ids[tokens], return_inverse=True)
        if not len(types):
            return np.empty(0, dtype=np.int64)
        totals = np.bincount(inverse, weights=values)
        mean = totals / (self._counts[types] + _SMOOTHING)
        strongest = types[np.argsort(-mean, kind="stable")[:TYPICAL_TOKENS]]
        return np.unique(self._windows[strongest].indices)
