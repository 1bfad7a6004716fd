"""Attention sinks: tokens whose hidden norm lies far above that of their layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model._text import TokenBatch

_SINK_FACTOR = 8.0
_SINK_TOKENS = 20_000


class Observation(NamedTuple):
    """What a hook point showed on a batch.

    Attributes:
        activations: float32 [batch, position, d].
        content_mask: bool [batch, position]: content tokens, attention sinks left out.
    """

    activations: Tensor
    content_mask: Tensor


class SinkNorms:
    """Norms of the first content tokens at points on the residual stream."""

    def __init__(self, points: Sequence[str]) -> None:
        """Begin with no tokens."""
        self._norms: dict[str, list[Tensor]] = {point: [] for point in points}
        self._tokens = 0

    def add(self, batch: TokenBatch, activations: Mapping[str, Tensor]) -> None:
        """Count a batch: activations [batch, position, d] at each of the points."""
        for point, norms in self._norms.items():
            norms.append(activations[point].norm(dim=-1)[batch.content_mask].cpu())
        self._tokens += int(batch.content_mask.sum())

    @property
    def enough(self) -> bool:
        """Whether further batches would change nothing."""
        return self._tokens >= _SINK_TOKENS

    def thresholds(self) -> dict[str, float]:
        """8 times the median norm of the first 20,000 content tokens, by point.

        Raises:
            ModelError: no batch held a content token.
        """
        if self._norms and self._tokens == 0:
            raise ModelError("the texts hold no content token: attention sinks cannot be told")
        return {
            point: _SINK_FACTOR * torch.cat(norms)[:_SINK_TOKENS].quantile(0.5).item()
            for point, norms in self._norms.items()
        }


def thresholds_of(
    read: Iterable[tuple[TokenBatch, Mapping[str, Tensor]]], residual: Mapping[str, str]
) -> dict[str, float]:
    """Thresholds of hook points; what is read stops at tokens enough.

    Args:
        read: batches with activations [batch, position, d] at the points of the residual stream.
        residual: by hook point, the point on the residual stream whose norm counts.

    Raises:
        ModelError: no batch held a content token.
    """
    norms = SinkNorms(sorted(set(residual.values())))
    for batch, found in read:
        norms.add(batch, found)
        if norms.enough:
            break
    thresholds = norms.thresholds()
    return {name: thresholds[point] for name, point in residual.items()}


def without_sinks(
    batch: TokenBatch,
    found: Mapping[str, Tensor],
    residual: Mapping[str, str],
    thresholds: Mapping[str, float],
) -> dict[str, Observation]:
    """Content masks that leave out tokens whose norm at the residual point is a sink's.

    Raises:
        ModelError: a norm is not finite: such a token is no sink, but a fault.
    """
    observed = {}
    for name, point in residual.items():
        norms = found[point].norm(dim=-1)
        faulty = batch.content_mask & ~norms.isfinite()
        if faulty.any():
            document = batch.texts[int(faulty.any(1).nonzero()[0])].document
            raise ModelError(
                f"the model's activations at {point} are not finite in document {document!r}: "
                'set `model.dtype` to "float32" in safesail.toml, or mend the model'
            )
        content = batch.content_mask & (norms <= thresholds[name])
        observed[name] = Observation(found[name], content)
    return observed
