"""Run candidates over the corpus sample and the pairs' texts: all they share is one model pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safesail.language_model import LanguageModel, TokenizedText
from safesail.sparse_autoencoder import SparseAutoencoder

# Where fewer activations than this are non-zero, the 0.999 quantile is the maximum.
_QUANTILE_NEEDS = 1_000


@dataclass
class SampleStatistics:
    """What a pass over the corpus sample says of one SAE.

    Attributes:
        fired: content tokens at which each feature is above zero, [width].
        tokens: content tokens seen.
    """

    width: int
    d_in: int
    planned_tokens: int
    tokens: int = 0
    fired: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.fired = np.zeros(self.width, dtype=np.int64)
        # The quantile of n values lies 0.001 (n - 1) places below the largest: so many suffice.
        self._largest = LargestValues(self.width, int(0.001 * self.planned_tokens) + 2)
        self._error = 0.0
        self._squares = 0.0
        self._sums = np.zeros(self.d_in)

    def add(self, inputs: Tensor, activations: Tensor, reconstruction: Tensor) -> None:
        """Count a batch: inputs [n, d_in], activations [n, width], reconstruction [n, d_in]."""
        self.tokens += len(inputs)
        # One search for the few that fire serves both counts and largest values.
        rows, columns = (activations > 0).nonzero(as_tuple=True)
        features = columns.cpu().numpy()
        self.fired += np.bincount(features, minlength=self.width)
        self._largest.add(features, activations[rows, columns].float().cpu().numpy())
        self._error += float((inputs - reconstruction).square().sum(dtype=torch.float64))
        self._squares += float(inputs.square().sum(dtype=torch.float64))
        self._sums += inputs.sum(0, dtype=torch.float64).cpu().numpy()

    @property
    def l0(self) -> float:
        """Mean number of active features per content token."""
        return float(self.fired.sum() / self.tokens)

    @property
    def dead_share(self) -> float:
        """Share of features that never fired."""
        return float((self.fired == 0).mean())

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over squared distance to the mean.

        NaN where the tokens do not vary, as where there is only one.
        """
        variance = self._squares - float((self._sums**2).sum()) / self.tokens
        return self._error / variance if variance > 0 else float("nan")

    def q999(self) -> NDArray[np.float32]:
        """0.999 quantile of each feature's non-zero activations, exact, [width]; 0 if silent."""
        return self._largest.quantile(self.fired)


class LargestValues:
    """The largest positive activations of each feature, exactly, in bounded memory."""

    def __init__(self, width: int, count: int) -> None:
        """Keep up to `count` values for each of `width` features."""
        self._count = count
        self._width = width
        self._features = [np.empty(0, dtype=np.int64)]
        self._values = [np.empty(0, dtype=np.float32)]
        self._held = 0
        self._room = max(4 * width * count, 1 << 20)
        # Values at or below a feature's floor can no longer be among its largest.
        self._floor = np.zeros(width, dtype=np.float32)

    def add(self, features: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Take in positive activations: which feature, and how large; both [n]."""
        above = values > self._floor[features]
        self._features.append(features[above])
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

    def _prune(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
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


@dataclass
class Observation:
    """One candidate's activations on the pairs' texts and its statistics on the sample.

    Attributes:
        pooled: activation of each feature on each text, [texts, width].
    """

    sae: SparseAutoencoder
    sample: SampleStatistics
    pooled: NDArray[np.float32]

    def q999(self) -> NDArray[np.float32]:
        """q999 on the sample; for features silent there, their largest value on the texts."""
        q999 = self.sample.q999()
        return np.where(self.sample.fired > 0, q999, self.pooled.max(0))


def observe(
    model: LanguageModel,
    saes: Sequence[SparseAutoencoder],
    sample: Sequence[TokenizedText],
    texts: Sequence[TokenizedText],
    *,
    pooling: str,
    progress: Callable[[Iterable, str], Iterable],
) -> list[Observation]:
    """Observe candidates that share a BOS rule and fit in memory together.

    Args:
        model: the language model.
        saes: candidates; all have the same `prepend_bos`.
        sample: the corpus sample, tokenised.
        texts: the pairs' texts, tokenised, one piece each; `document` is the text's number.
        pooling: how a text's content tokens become one activation: `max`, `mean` or `last`.
        progress: wraps an iterable with a label, to show how far the pass is.

    Returns:
        One observation per candidate, in order.
    """
    prepend_bos = saes[0].prepend_bos
    hook_points = list(dict.fromkeys(sae.hook_point for sae in saes))
    batches = list(model.batches(sample, prepend_bos=prepend_bos))
    thresholds = model.sink_thresholds(batches, hook_points)
    observations = [
        Observation(
            sae,
            SampleStatistics(sae.width, sae.d_in, sum(len(text.token_ids) for text in sample)),
            np.zeros((len(texts), sae.width), dtype=np.float32),
        )
        for sae in saes
    ]
    for batch in progress(batches, "corpus sample"):
        for hook_point, (activations, content) in model.observe(
            batch, hook_points, thresholds
        ).items():
            inputs = activations[content]
            for observation in observations:
                if observation.sae.hook_point == hook_point:
                    encoded = observation.sae.encode(inputs)
                    observation.sample.add(inputs, encoded, observation.sae.decode(encoded))
    batches = list(model.batches(texts, prepend_bos=prepend_bos))
    for batch in progress(batches, "contrast pairs"):
        numbers = [int(text.document) for text in batch.texts]
        for hook_point, (activations, content) in model.observe(
            batch, hook_points, thresholds
        ).items():
            inputs, lengths = activations[content], content.sum(1).tolist()
            for observation in observations:
                if observation.sae.hook_point == hook_point:
                    encoded = observation.sae.encode(inputs)
                    for number, tokens in zip(numbers, encoded.split(lengths), strict=True):
                        observation.pooled[number] = _pool(tokens, pooling)
    return observations


def _pool(tokens: Tensor, pooling: str) -> NDArray[np.float32]:
    """One activation per feature from a text's content tokens, [tokens, width] -> [width]."""
    if len(tokens) == 0:
        return np.zeros(tokens.shape[1], dtype=np.float32)
    if pooling == "max":
        pooled = tokens.amax(0)
    else:
        pooled = tokens.mean(0) if pooling == "mean" else tokens[-1]
    result: NDArray[np.float32] = pooled.float().cpu().numpy()
    return result
