"""Fixed bins of positive activations, read off the bits of a float32: exact on every machine.

An octave, from one power of two to the next, is cut into 32 equal parts (so that a bin is 1.6 to
3.1 % as wide as its values are large) from 2^-20 to 2^20. Values beyond either end are counted in
the outermost bin. Two bins together are a sampling bin, sixteen of which are an octave.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PARTS = 32
OCTAVES = 40
BINS = PARTS * OCTAVES
BINS_PER_SAMPLING_BIN = 2
SAMPLING_BINS = BINS // BINS_PER_SAMPLING_BIN

_LOWEST_EXPONENT = -20
_MANTISSA_BITS = 23
_SHIFT = _MANTISSA_BITS - (PARTS.bit_length() - 1)
_OFFSET = (127 + _LOWEST_EXPONENT) * PARTS

QUANTILE_ERROR = 0.5 / PARTS
"""Largest relative distance of a value inside the range from the middle of its bin."""


def bins_of(values: Tensor) -> Tensor:
    """Bin of each positive activation: int64, shape of `values`, from float32."""
    return ((values.view(torch.int32) >> _SHIFT) - _OFFSET).clamp_(0, BINS - 1).long()


def sampling_bins_of(values: Tensor) -> Tensor:
    """Sampling bin of each positive activation: int64, shape of `values`, from float32."""
    return bins_of(values) // BINS_PER_SAMPLING_BIN


def edges() -> NDArray[np.float32]:
    """Lower edge of every bin and the upper edge of the last one, [BINS + 1]."""
    bits = (np.arange(BINS + 1, dtype=np.int32) + _OFFSET) << _SHIFT
    return bits.view(np.float32)


def sampling_edges() -> NDArray[np.float32]:
    """The same of the sampling bins, [SAMPLING_BINS + 1]."""
    return edges()[::BINS_PER_SAMPLING_BIN]
