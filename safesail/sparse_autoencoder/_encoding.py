"""Features from inputs, equal to SAELens' `encode` but in fewer passes over memory.

One product with the bias inside, then the activation in place: at full width every further pass
over [tokens, width], and every new tensor of that size, costs a good part of the product. Equality
is up to float32 rounding; a pre-activation that lies within rounding of a threshold, of zero in a
gate, or of the k-th largest may fall on the other side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_STANDARD = ("standard", "transcoder", "skip_transcoder")
_JUMPRELU = ("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder")
BY_COLUMN = (*_STANDARD, *_JUMPRELU, "gated")
"""Architectures in which a feature depends on its own column of the encoder alone."""


def encode(sae: Any, x: Tensor, columns: Tensor | slice) -> Tensor:
    """Activations of some features, or of all.

    Args:
        sae: of SAELens, in float32, decoder norms folded (`rescale_acts_by_decoder_norm` false).
        x: float32 [n, d_in]; normalised and centred here as the SAE asks.
        columns: int64 [k], or `slice(None)` for all; a subset costs less than all where the
            architecture is one of `BY_COLUMN`.

    Returns:
        float32 [n, k].
    """
    architecture = sae.cfg.architecture()
    if architecture in BY_COLUMN:
        inputs, weights = sae.process_sae_in(x), sae.W_enc[:, columns]
        if architecture == "gated":
            return _gated(sae, inputs @ weights, columns)
        drive = torch.addmm(sae.b_enc[columns], inputs, weights)
        if architecture in _JUMPRELU:
            # Above the threshold and above zero, as JumpReLU is a ReLU too.
            floor = sae.threshold[columns].clamp(min=0)
            return drive.masked_fill_(drive <= floor, 0)
        return drive.relu_()
    if architecture in ("topk", "abstopk"):
        drive = torch.addmm(sae.b_enc, sae.process_sae_in(x), sae.W_enc)
        return _largest(drive, sae.cfg.k, signed=architecture == "abstopk")[:, columns]
    # Matching pursuit is a loop over residuals, with nothing to fuse.
    encoded: Tensor = sae.encode(x)
    return encoded[:, columns]


def _gated(sae: Any, drive: Tensor, columns: Tensor | slice) -> Tensor:
    closed = drive <= -sae.b_gate[columns]
    torch.addcmul(sae.b_mag[columns], drive, sae.r_mag[columns].exp(), out=drive)
    return drive.relu_().masked_fill_(closed, 0)


def _largest(drive: Tensor, k: int, *, signed: bool) -> Tensor:
    """Zero all but the k largest of each row in place, or the k largest in size."""
    if signed:
        places = drive.abs().topk(k, dim=-1, sorted=False).indices
        values = drive.gather(-1, places)
    else:
        values, places = drive.topk(k, dim=-1, sorted=False)
        values = values.relu_()
    return drive.zero_().scatter_(-1, places, values)
