"""A basis of the residual stream carried through the norm that stands before a module."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAST_GAIN = 0.01
"""Smaller gains, in medians of the absolute gain, count as this large."""


class Carried(NamedTuple):
    """A basis as a module's factor has it.

    Attributes:
        factor: float32 [d_model, r], orthonormal columns.
        fidelity: mean squared cosine between the basis and what the factor reads or writes at the
            stream: 1 but where gains were too small to divide by.
    """

    factor: Tensor
    fidelity: float


def carry(basis: NDArray[np.float32], gain: Tensor | None) -> Carried:
    """Orthonormal columns that span diag(1 / gain) U.

    A norm gives g * x / s, with gain g and, for each token, a number s. So a reader with
    A = Q^T, where Q R = diag(1 / g) U, sees A norm(x) = R^-T U^T x / s: U^T x in other
    coordinates, and nothing else of x. (A LayerNorm takes the mean off first.) A writer before a
    norm with B = Q adds diag(g) Q c / s = U R^-1 c / s: it stays in the span of U, but for a
    change of s, which moves the output along itself. The QR decomposition keeps the order of the
    columns: the first k of Q go with the first k of U.

    Coordinates with a gain near 0 would take the factor over, and the norm hardly passes them on:
    their gain counts as 0.01 medians. This, and carrying the basis at all, is our choice; of the
    paper we do not know how it treats norms.

    Args:
        basis: [d_model, r], orthonormal columns.
        gain: float64 [d_model], of `norm_gain`; None where there is no norm.
    """
    columns = torch.from_numpy(np.ascontiguousarray(basis)).double()
    if gain is None:
        return Carried(_orthonormal(columns).float(), 1.0)
    least = _LEAST_GAIN * float(gain.abs().median())
    safe = torch.where(gain < 0, -1.0, 1.0) * gain.abs().clamp(min=max(least, 1e-12))
    factor = _orthonormal(columns / safe[:, None])
    reached = torch.linalg.qr(gain[:, None] * factor).Q
    fidelity = float((reached.T @ columns).square().sum() / columns.shape[1])
    return Carried(factor.float(), min(1.0, fidelity))


def _orthonormal(columns: Tensor) -> Tensor:
    """QR with a positive diagonal, so that orthonormal columns stay as they are."""
    q, r = torch.linalg.qr(columns)
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)
