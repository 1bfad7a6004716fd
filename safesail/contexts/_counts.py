"""How often and how strongly features fire: sums and maxima, which add up in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safesail.contexts._bins import (
    BINS,
    QUANTILE_ERROR,
    SAMPLING_BINS,
    bins_of,
    edges,
    sampling_bins_of,
)
from safesail.contexts._windows import SPLITS

# Where fewer activations than this are non-zero, the 0.999 quantile is the maximum.
_QUANTILE_NEEDS = 1_000


@dataclass
class Counts:
    """Counts over content tokens and over windows.

    Attributes:
        tokens: content tokens seen.
        windows: windows with a content token, by split, int64 [2].
        maximum: largest activation of each feature, float32 [features].
        token_histogram: tokens by bin of the activation, int64 [features, BINS].
        window_histogram: windows by split and sampling bin of the peak, int32
            [features, 2, SAMPLING_BINS].
    """

    tokens: int
    windows: Tensor
    maximum: Tensor
    token_histogram: Tensor
    window_histogram: Tensor

    @classmethod
    def empty(cls, features: int, device: str) -> Counts:
        """Nothing seen yet."""
        return cls(
            0,
            torch.zeros(len(SPLITS), dtype=torch.int64, device=device),
            torch.zeros(features, device=device),
            torch.zeros(features, BINS, dtype=torch.int64, device=device),
            torch.zeros(features, len(SPLITS), SAMPLING_BINS, dtype=torch.int32, device=device),
        )

    def add_tokens(self, encoded: Tensor) -> None:
        """Count activations: float32 [tokens, features]."""
        if not len(encoded):
            return
        self.tokens += len(encoded)
        torch.maximum(self.maximum, encoded.amax(0), out=self.maximum)
        token, feature = (encoded > 0).nonzero(as_tuple=True)
        cells = feature * BINS + bins_of(encoded[token, feature])
        _count(self.token_histogram, cells)

    def add_windows(self, seen: Tensor, feature: Tensor, split: Tensor, peaks: Tensor) -> None:
        """Count windows.

        Args:
            seen: split of each window with a content token, int64 [n].
            feature: of every active window, int64 [m].
            split: of every active window, int64 [m].
            peaks: largest activation of each, float32 [m].
        """
        self.windows += torch.bincount(seen, minlength=len(SPLITS))
        group = feature * len(SPLITS) + split
        _count(self.window_histogram, group * SAMPLING_BINS + sampling_bins_of(peaks))

    def merge(self, other: Counts) -> None:
        """Take in what another part of the corpus showed."""
        device = self.maximum.device
        self.tokens += other.tokens
        self.windows += other.windows.to(device)
        torch.maximum(self.maximum, other.maximum.to(device), out=self.maximum)
        self.token_histogram += other.token_histogram.to(device)
        self.window_histogram += other.window_histogram.to(device)

    def fired(self) -> NDArray[np.int64]:
        """Content tokens at which each feature is above zero, [features]."""
        fired: NDArray[np.int64] = self.token_histogram.sum(1).cpu().numpy()
        return fired

    def q999(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """0.999 quantile of each feature's non-zero activations, and its largest relative error.

        Exact, the maximum, where fewer than 1,000 are non-zero; 0 where none is. Else the two
        values that the quantile lies between are taken as the middles of their bins, so the
        error is at most 1/64. Infinite where a value that it is taken from lies in an outermost
        bin, which holds whatever lies beyond the bins' range too: levels may mean nothing then.

        Returns:
            Both [features].
        """
        histogram, fired = self.token_histogram.cpu().numpy(), self.fired()
        maximum = self.maximum.cpu().numpy().astype(np.float64)
        at_most = np.cumsum(histogram, axis=1)
        exact = fired < _QUANTILE_NEEDS
        place = np.where(exact, 1.0, 0.999) * np.maximum(fired - 1, 0)
        lower = _bin_at(at_most, np.floor(place))
        upper = _bin_at(at_most, np.ceil(place))
        borders = edges().astype(np.float64)
        middles = (borders[1:] + borders[:-1]) / 2
        share = place - np.floor(place)
        quantile = middles[lower] * (1 - share) + middles[upper] * share
        found = np.where(exact, maximum, np.minimum(quantile, maximum))
        outermost = np.isin(lower, (0, BINS - 1)) | np.isin(upper, (0, BINS - 1))
        error = np.where(outermost, np.inf, np.where(exact, 0.0, QUANTILE_ERROR))
        return found, error


def _bin_at(at_most: NDArray[np.int64], place: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of the value at a place of the ascending order, 0 for the first, [features]."""
    return np.minimum((at_most <= place[:, None]).sum(1), at_most.shape[1] - 1)


def _count(histogram: Tensor, cells: Tensor) -> None:
    one = torch.ones(1, dtype=histogram.dtype, device=histogram.device)
    histogram.view(-1).scatter_add_(0, cells, one.expand(len(cells)))
