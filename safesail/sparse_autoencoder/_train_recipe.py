"""What an SAE to be trained is: where it reads, its architecture, its sparsity, how long."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from safesail.errors import ConfigurationError

ARCHITECTURES = ("topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated")
PENALISED = ("standard", "gated")
"""Architectures whose sparsity is an L1 coefficient; that of all others is an L0."""

# Where an SAE may read: the rest of the hook point's name, and the word in the SAE's name.
_SITES = {
    "resid_pre": ("hook_resid_pre", "resid_pre"),
    "resid_mid": ("hook_resid_mid", "resid_mid"),
    "resid_post": ("hook_resid_post", "resid"),
    "mlp_out": ("hook_mlp_out", "mlp"),
    "attn_out": ("hook_attn_out", "attn"),
    "z": ("attn.hook_z", "z"),
}
USUAL_EXPANSION = 8
"""Features for each number that is read, unless asked otherwise."""


def site_hook_point(layer: int, site: str) -> str:
    """TransformerLens name of a site in a block: `resid_post` gives `blocks.L.hook_resid_post`.

    Raises:
        ConfigurationError: no such site.
    """
    if site not in _SITES:
        raise ConfigurationError(f"unknown site {site!r}: there are {', '.join(_SITES)}")
    return f"blocks.{layer}.{_SITES[site][0]}"


def usual_learning_rate(width: int) -> float:
    """4e-4 at 16,384 features, falling with the square root of the width.

    Gao et al. (arXiv 2406.04093) found that law for TopK SAEs, with half this number: trainings
    are shorter here.
    """
    return float(f"{4e-4 * math.sqrt(2**14 / max(1, width)):.2g}")


@dataclass(frozen=True)
class Recipe:
    """An SAE to be trained. Equal recipes on equal activations give equal SAEs.

    Attributes:
        hook_point: TransformerLens name of what it reads.
        architecture: one of ARCHITECTURES; `matryoshka` is SAELens' matryoshka_batchtopk.
        sparsity: topk, batchtopk, matryoshka: features kept per token (k); jumprelu: the L0 that
            its penalty aims at; standard, gated: the L1 coefficient.
        width: number of features.
        steps: optimiser steps.
        batch: tokens in each step.
        learning_rate: of Adam at the start; it falls to a tenth along a cosine.
        seed: of the first weights and of the order of the tokens.
    """

    hook_point: str
    architecture: str
    sparsity: float
    width: int
    steps: int
    batch: int
    learning_rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigurationError: unknown architecture, no hook point inside a block, or a number out
                of range.
        """
        if self.architecture not in ARCHITECTURES:
            raise ConfigurationError(
                f"unknown architecture {self.architecture!r}: there are {', '.join(ARCHITECTURES)}"
            )
        if not re.fullmatch(r"blocks\.\d+\.\S+", self.hook_point):
            raise ConfigurationError(
                f"hook point {self.hook_point!r} is not one of TransformerLens inside a block, "
                "such as `blocks.2.hook_resid_post`"
            )
        for name in ("sparsity", "width", "steps", "batch", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} must be above 0, found {value:g}")
        if self.architecture in PENALISED:
            return
        if self.sparsity > self.width:
            raise ConfigurationError(
                f"sparsity {self.sparsity:g} of {self.architecture} is above the width "
                f"{self.width}: it is a number of active features"
            )
        if self.architecture == "topk" and self.sparsity != int(self.sparsity):
            raise ConfigurationError(
                f"sparsity {self.sparsity:g} of topk must be whole: it is a number of features"
            )

    def name(self, d_in: int) -> str:
        """Name of the SAE and its folder, e.g. `layer2-resid-topk16`.

        Args:
            d_in: size of what it reads; a width other than 8 times that stands in the name.
        """
        _, layer, site = self.hook_point.split(".", maxsplit=2)
        word = dict(_SITES.values()).get(site) or re.sub(r"[^a-z0-9]+", "_", site.lower())
        width = "" if self.width == USUAL_EXPANSION * d_in else f"-w{self.width}"
        return f"layer{layer}-{word}-{self.architecture}{self.sparsity:g}{width}"
