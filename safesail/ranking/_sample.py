"""What content tokens say of one SAE: how well it rebuilds them, what fires, how strongly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Where fewer activations than this are non-zero, the 0.999 quantile is the maximum.
_QUANTILE_NEEDS = 1_000
# Bytes that the activations of all features may take at a time, whatever the batch.
ACTIVATIONS_BUDGET = 1 << 28
# One search for what fires looks at so many activations: all that fire would be 640 MB.
_SEARCHED = 1 << 25
# Where at most this share of the activations is not zero, rebuilding from these alone is faster
# (768 numbers per token, two cores: 0.4 µs per firing, 440 µs for all 24,576 features).
_FEW = 1 / 32


@dataclass(frozen=True)
class Firings:
    """Non-zero activations of some tokens, in the order of tokens and, within one, of features.

    Attributes:
        tokens: place of the token, int64 [m].
        features: which feature, int64 [m].
        values: how strongly, float32 [m]; below zero only for an SAE that allows it.
    """

    tokens: Tensor
    features: Tensor
    values: Tensor

    @classmethod
    def of(cls, activations: Tensor) -> Iterator[Firings]:
        """Search activations [n, width] for what fires, some tokens at a time."""
        rows = max(1, _SEARCHED // activations.shape[1])
        for begin in range(0, len(activations), rows):
            part = activations[begin : begin + rows]
            tokens, features = part.nonzero(as_tuple=True)
            yield cls(tokens + begin, features, part[tokens, features])


def chunks_of(tokens: int, width: int) -> int:
    """Into how many chunks tokens are split so that each keeps to `ACTIVATIONS_BUDGET`."""
    return max(1, ceil(4 * tokens * width / ACTIVATIONS_BUDGET))


class Code:
    """Activations in the form that is rebuilt from fastest."""

    def __init__(self, activations: Tensor) -> None:
        """Activations [n, width], of which `add` is to be told every firing, in order."""
        self._dense = activations
        self._firings: list[Firings] = []
        self._fired = 0

    def add(self, firings: Firings) -> None:
        """Take in what fires at the next tokens."""
        self._fired += len(firings.values)
        self._firings = [*self._firings, firings] if self._few() else []

    def tensor(self) -> Tensor:
        """The activations: sparse CSR where few are not zero, else as they are."""
        if not self._few():
            return self._dense
        rows, width = self._dense.shape
        tokens = torch.cat([part.tokens for part in self._firings])
        starts = torch.zeros(rows + 1, dtype=torch.int64, device=tokens.device)
        torch.cumsum(torch.bincount(tokens, minlength=rows), 0, out=starts[1:])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                starts,
                torch.cat([part.features for part in self._firings]),
                torch.cat([part.values for part in self._firings]),
                size=(rows, width),
                check_invariants=False,
            )

    def _few(self) -> bool:
        return 0 < self._fired <= _FEW * self._dense.numel()


@dataclass(frozen=True)
class Spread:
    """How some tokens' activations vary.

    Attributes:
        tokens: how many.
        mean: float64 [d].
        squares: squared distances to the mean, summed over tokens.
    """

    tokens: int
    mean: NDArray[np.float64]
    squares: float

    @classmethod
    def of(cls, activations: Tensor) -> Spread:
        """Of activations [n, d]; n may be 0."""
        if not len(activations):
            return cls(0, np.zeros(activations.shape[1]), 0.0)
        mean = activations.mean(0)
        return cls(len(activations), mean.cpu().double().numpy(), _squares(activations - mean))

    def joined(self, other: Spread) -> Spread:
        """Of both together (Chan, Golub and LeVeque 1983)."""
        tokens = self.tokens + other.tokens
        if not tokens:
            return self
        apart = other.mean - self.mean
        between = float((apart**2).sum()) * self.tokens * other.tokens / tokens
        mean = self.mean + apart * (other.tokens / tokens)
        return Spread(tokens, mean, self.squares + other.squares + between)


def _squares(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dim=1).cpu().double().square().sum())


@dataclass
class TokenStatistics:
    """What some content tokens say of an SAE's health.

    Attributes:
        width: number of features.
        d_out: size of what the SAE rebuilds.
        fired: content tokens at which each feature is above zero, [width].
    """

    width: int
    d_out: int
    fired: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.fired = np.zeros(self.width, dtype=np.int64)
        self._error = 0.0
        self._spread = Spread(0, np.zeros(self.d_out), 0.0)

    def add_targets(self, spread: Spread) -> None:
        """Count tokens that were to be rebuilt."""
        self._spread = self._spread.joined(spread)

    def add_rebuilt(self, targets: Tensor, rebuilt: Tensor) -> None:
        """Count errors: what was to be rebuilt and what was, both [n, d_out]."""
        self._error += _squares(targets - rebuilt)

    def add_fired(self, features: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Count positive activations of these tokens: which feature, how strongly; both [m]."""
        self.fired += np.bincount(features, minlength=self.width)

    @property
    def tokens(self) -> int:
        """Content tokens seen."""
        return self._spread.tokens

    @property
    def l0(self) -> float:
        """Mean number of active features per content token; NaN without tokens."""
        return float(self.fired.sum()) / self.tokens if self.tokens else float("nan")

    @property
    def dead_share(self) -> float:
        """Share of features that never fired."""
        return float((self.fired == 0).mean())

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over squared distance to the mean.

        NaN where the tokens do not vary, as where there is only one.
        """
        squares = self._spread.squares
        return self._error / squares if squares > 0 else float("nan")


@dataclass
class SampleStatistics(TokenStatistics):
    """The same of the corpus sample, with the upper end of each feature's activations.

    Attributes:
        planned_tokens: at most so many tokens will be counted.
    """

    planned_tokens: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        # The quantile of n values lies 0.001 (n - 1) places below the largest: so many suffice.
        self._largest = LargestValues(self.width, int(0.001 * self.planned_tokens) + 2)

    def add_fired(self, features: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Count positive activations, and keep the largest."""
        super().add_fired(features, values)
        self._largest.add(features, values)

    def q999(self) -> NDArray[np.float32]:
        """0.999 quantile of each feature's non-zero activations, exact, [width]; 0 if silent."""
        return self._largest.quantile(self.fired)


class LargestValues:
    """The largest positive activations of each feature, exactly, in bounded memory."""

    def __init__(self, width: int, count: int) -> None:
        """Keep up to `count` values for each of `width` features."""
        self._count = count
        self._width = width
        self._features = [np.empty(0, dtype=np.int32)]
        self._values = [np.empty(0, dtype=np.float32)]
        self._held = 0
        self._room = max(2 * width * count, 1 << 20)
        # Values at or below a feature's floor can no longer be among its largest.
        self._floor = np.zeros(width, dtype=np.float32)

    def add(self, features: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Take in positive activations: which feature, and how large; both [n]."""
        above = values > self._floor[features]
        self._features.append(features[above].astype(np.int32))
        self._values.append(values[above])
        self._held += len(self._values[-1])
        if self._held > self._room:
            self._prune()

    def quantile(self, fired: NDArray[np.int64]) -> NDArray[np.float32]:
        """Interpolated 0.999 quantile, given how many values each feature had in all, [width]."""
        features, values, places = self._prune()
        largest = np.zeros((self._width, self._count), dtype=np.float32)
        largest[features, places] = values
        below_top = np.where(fired < _QUANTILE_NEEDS, 0.0, 0.001 * (np.maximum(fired, 1) - 1))
        lower = np.floor(below_top).astype(int)
        share = (below_top - lower).astype(np.float32)
        rows = np.arange(self._width)
        upper_value = largest[rows, lower]
        lower_value = largest[rows, np.minimum(lower + 1, self._count - 1)]
        return upper_value * (1 - share) + lower_value * share

    def _prune(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
        """Drop what can no longer matter; returns what is kept, with places, 0 for the largest."""
        features, values = np.concatenate(self._features), np.concatenate(self._values)
        order = np.lexsort((-values, features))
        features, values = features[order], values[order]
        starts = np.searchsorted(features, np.arange(self._width))
        places = np.arange(len(features)) - starts[features]
        kept = places < self._count
        features, values, places = features[kept], values[kept], places[kept]
        full = places == self._count - 1
        self._floor[features[full]] = values[full]
        self._features, self._values, self._held = [features], [values], len(values)
        return features, values, places
