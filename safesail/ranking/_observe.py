"""What one candidate shows on the corpus sample and on the pairs' texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from safesail.ranking._activations import Site, SiteTokens
from safesail.ranking._sample import (
    Code,
    Firings,
    SampleStatistics,
    TokenStatistics,
    chunks_of,
)
from safesail.ranking._wiring import Wiring
from safesail.sparse_autoencoder import SparseAutoencoder


class Observation:
    """One candidate's activations on the pairs' texts, and its statistics.

    Attributes:
        sae: the candidate.
        sample: statistics over the corpus sample.
        pairs: statistics over the pairs' texts, each distinct text once.
        cut_texts: texts that were read in pieces, being longer than the model's context.
        sink_threshold: hidden norm above which tokens were left out as attention sinks.
        wiring: how it does where else it might belong; None where that is not known.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        *,
        sample_tokens: int,
        texts: int,
        pooling: str,
        cut_texts: int = 0,
    ) -> None:
        """Begin with no tokens.

        Args:
            sae: the candidate.
            sample_tokens: at most so many tokens of the corpus sample will be added.
            texts: number of the pairs' texts.
            pooling: how a text's content tokens become one activation: `max` (at least 0), `mean`
                or `last`; 0 where there are none.
            cut_texts: texts that come in pieces.
        """
        self.sae = sae
        self.sample = SampleStatistics(sae.width, sae.d_out, planned_tokens=sample_tokens)
        self.pairs = TokenStatistics(sae.width, sae.d_out)
        self.cut_texts = cut_texts
        self._pooled: NDArray[np.float32] = np.zeros((texts, sae.width), dtype=np.float32)
        self._text_tokens = np.zeros(texts, dtype=np.int64)
        self.sink_threshold = float("nan")
        self.wiring: Wiring | None = None
        self._q999: NDArray[np.float32] | None = None
        self._pooling = pooling

    @property
    def site(self) -> Site:
        """What the candidate reads and rebuilds."""
        return Site(self.sae.hook_point, self.sae.output_hook_point)

    @property
    def pooled(self) -> NDArray[np.float32]:
        """Activation of each feature on each text, [texts, width]; below zero counts as silent."""
        if self._pooling != "mean":
            return self._pooled
        tokens = np.maximum(self._text_tokens, 1).astype(np.float32)
        mean: NDArray[np.float32] = np.divide(self._pooled, tokens[:, None], dtype=np.float32)
        return mean

    def q999(self) -> NDArray[np.float32]:
        """q999 on the sample; for features silent there, their largest value on the texts.

        To be asked for when all tokens have been added; found once.
        """
        if self._q999 is None:
            q999 = self.sample.q999()
            self._q999 = np.where(self.sample.fired > 0, q999, self.pooled.max(0))
        return self._q999

    def add(self, tokens: SiteTokens) -> None:
        """Encode and count the content tokens of one batch at the candidate's site.

        At most 256 MB of activations of all features are held at a time.
        """
        chunks = chunks_of(len(tokens.inputs), self.sae.width)
        statistics = self.sample if tokens.part == "sample" else self.pairs
        statistics.add_targets(tokens.spread)
        self.sink_threshold = tokens.sink_threshold
        if tokens.part == "pairs":
            np.add.at(self._text_tokens, tokens.texts, tokens.lengths)
        begin = 0
        for inputs, targets in zip(
            tokens.inputs.tensor_split(chunks), tokens.targets.tensor_split(chunks), strict=True
        ):
            self._add_chunk(tokens, statistics, inputs, targets, begin)
            begin += len(inputs)

    def _add_chunk(
        self,
        tokens: SiteTokens,
        statistics: TokenStatistics,
        inputs: Tensor,
        targets: Tensor,
        begin: int,
    ) -> None:
        activations = self.sae.encode(inputs)
        code = Code(activations)
        for firings in Firings.of(activations):
            features, values = firings.features.cpu().numpy(), firings.values.cpu().numpy()
            positive = values > 0
            statistics.add_fired(features[positive], values[positive])
            if tokens.part == "pairs":
                token = begin + firings.tokens.cpu().numpy()
                kept = ~(values <= 0)  # NaN too: it must show
                self._pool(tokens, token[kept], features[kept], values[kept])
            code.add(firings)
        statistics.add_rebuilt(targets, self.sae.decode(code.tensor()))

    def _pool(
        self,
        batch: SiteTokens,
        tokens: NDArray[np.int64],
        features: NDArray[np.int64],
        values: NDArray[np.float32],
    ) -> None:
        """Let activations above zero of a batch's tokens count for their texts."""
        lengths = np.array(batch.lengths)
        row = np.repeat(np.arange(len(lengths)), lengths)[tokens]
        # One index instead of two makes NumPy ten times as fast here.
        flat = self._pooled.reshape(-1)
        places = np.array(batch.texts)[row] * self.sae.width + features
        if self._pooling == "max":
            np.maximum.at(flat, places, values)
        elif self._pooling == "mean":
            np.add.at(flat, places, values)
        else:
            last = tokens == np.cumsum(lengths)[row] - 1
            flat[places[last]] = values[last]
