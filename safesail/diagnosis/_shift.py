"""What changing a feature's activation does to the activations that its SAE rebuilds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safesail.sparse_autoencoder import SparseAutoencoder

Mode = Literal["clamp", "scale", "ablate"]


@dataclass(frozen=True)
class FeatureEdit:
    """What a feature's activation a becomes.

    Attributes:
        feature: its index.
        mode: `clamp` (value times q999), `scale` (value times a) or `ablate` (0).
        value: see `mode`; `ablate` does not use it.
        q999: of the feature, in the SAE's units.
    """

    feature: int
    mode: Mode
    value: float
    q999: float

    def becomes(self, activations: Tensor) -> Tensor:
        """New activations for old ones."""
        if self.mode == "clamp":
            return torch.full_like(activations, self.value * self.q999)
        return activations * (self.value if self.mode == "scale" else 0.0)


def feature_shift(sae: SparseAutoencoder, x: Tensor, edit: FeatureEdit) -> tuple[Tensor, Tensor]:
    """Change of what the SAE rebuilds, in the model's units, when one feature is edited.

    It is decode(z') - decode(z), where z is what the SAE makes of x and z' differs from it in the
    feature alone: (a' - a) times the feature's decoder row, scaled as the SAE scales each input
    (`normalize_activations`). What the SAE does not rebuild of x is left as it is.

    Args:
        sae: the SAE.
        x: float32 [n, d_in], at its hook point.
        edit: what becomes of the feature.

    Returns:
        float32 [n, d_out], exactly 0 where the activation does not change; and a' - a, [n].
    """
    z = sae.encode(x)
    edited = z.clone()
    edited[:, edit.feature] = edit.becomes(z[:, edit.feature])
    difference = edited[:, edit.feature] - z[:, edit.feature]
    shift = sae.decode(edited) - sae.decode(z)
    return shift.masked_fill_(difference[:, None] == 0, 0), difference


class TextChange:
    """The change of one text, at its content tokens, once for each of some directions.

    It is a `Change` of `FullForward`: rows of a batch are the same text. The shift of a control
    has, at each token, the norm and the sign of the feature's own there.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        edit: FeatureEdit,
        content: Tensor,
        rows: Sequence[int | None] = (None,),
    ) -> None:
        """Prepare directions.

        Args:
            sae: the SAE.
            edit: what becomes of the feature.
            content: bool [position] of the text, BOS included; tokens after it are content too.
            rows: of each row of the batch, the control feature along whose decoder direction it
                is shifted; None for the feature itself.
        """
        self._sae, self._edit, self._content, self._rows = sae, edit, content, rows
        self._directions = {
            row: sae.decoder_directions[row].to(content.device) for row in rows if row is not None
        }

    def __call__(self, values: Tensor, first: int) -> Tensor:
        """What is added to activations [batch, position, d], whose first position is `first`."""
        length = values.shape[1]
        content = torch.ones(length, dtype=torch.bool, device=values.device)
        known = self._content[first : first + length]
        content[: len(known)] = known
        shift, difference = feature_shift(self._sae, values[0], self._edit)
        shift = shift.masked_fill(~content[:, None], 0)
        sizes = shift.norm(dim=-1, keepdim=True) * difference.sign()[:, None]
        return torch.stack(
            [shift if row is None else sizes * self._directions[row] for row in self._rows]
        )
