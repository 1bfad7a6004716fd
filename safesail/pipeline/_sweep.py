"""What `train_saes` is to train: a sweep over layers, sites, architectures and sparsities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from safesail.errors import ConfigurationError, ModelError
from safesail.sparse_autoencoder import PENALISED, USUAL_EXPANSION

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel
    from safesail.sparse_autoencoder import Recipe

# On the lab's model these leave 10 to 40 features active. Inputs are scaled to one variance, so
# it is of that order on others.
_USUAL_ACTIVE = (16.0, 32.0, 64.0)
_USUAL_COEFFICIENTS = (0.5, 1.0, 2.0)
_FEWEST_STEPS = 2000


@dataclass(frozen=True)
class Sweep:
    """SAEs to train: every combination of layer, site, architecture and sparsity.

    Attributes:
        layers: numbers of blocks; empty means the middle one.
        sites: where in a block, by TransformerLens' names: resid_post, mlp_out ...
        architectures: topk, batchtopk, matryoshka, jumprelu, standard, gated.
        sparsities: numbers of active features; for standard and gated, L1 coefficients. Empty
            means 16, 32, 64, and 0.5, 1, 2.
        width: features of each SAE; None means 8 times what it reads.
        tokens: tokens of the corpus to read; None means the study's `corpus.max_tokens`.
        steps: optimiser steps; None means one pass over the tokens, at least 2,000 steps.
        batch: tokens of a step.
        learning_rate: at the start; None goes by the width: 4e-4 at 16,384 features, rising with
            the inverse square root.
        seed: of weights, order and parts.
    """

    layers: tuple[int, ...] = ()
    sites: tuple[str, ...] = ("resid_post",)
    architectures: tuple[str, ...] = ("topk",)
    sparsities: tuple[float, ...] = ()
    width: int | None = None
    tokens: int | None = None
    steps: int | None = None
    batch: int = 1024
    learning_rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Planned:
    """An SAE to be trained: its name, its recipe, and the size of what it reads."""

    name: str
    recipe: Recipe
    d_in: int


def plan(sweep: Sweep, model: LanguageModel, tokens: int) -> list[Planned]:
    """The SAEs of a sweep, layer by layer.

    Args:
        sweep: what to train.
        model: the language model.
        tokens: how many tokens of the corpus will be read.

    Raises:
        ModelError: the model has no such layer or hook point.
        ConfigurationError: an unknown site or architecture, a number out of range, or sparsities
            that mean different things to the architectures.
    """
    from safesail.sparse_autoencoder import Recipe, site_hook_point, usual_learning_rate

    if sweep.sparsities and len({name in PENALISED for name in sweep.architectures}) > 1:
        raise ConfigurationError(
            f"sparsities are L1 coefficients to {' and '.join(PENALISED)}, numbers of active "
            "features to the others: train them by two commands"
        )
    for layer in sweep.layers:
        if not 0 <= layer < model.layers:
            raise ModelError(
                f"model {model.name!r} has no layer {layer}: its layers are 0 to {model.layers - 1}"
            )
    usual_steps = max(_FEWEST_STEPS, tokens // max(1, sweep.batch))
    found = {}
    for layer, site, architecture in product(
        sweep.layers or (model.layers // 2,), sweep.sites, sweep.architectures
    ):
        hook_point = model.hook_point(site_hook_point(layer, site))
        d_in = model.activation_size(hook_point)
        width = USUAL_EXPANSION * d_in if sweep.width is None else sweep.width
        usual = _USUAL_COEFFICIENTS if architecture in PENALISED else _USUAL_ACTIVE
        for sparsity in sweep.sparsities or usual:
            recipe = Recipe(
                hook_point=hook_point,
                architecture=architecture,
                sparsity=sparsity,
                width=width,
                steps=usual_steps if sweep.steps is None else sweep.steps,
                batch=sweep.batch,
                learning_rate=(
                    usual_learning_rate(width)
                    if sweep.learning_rate is None
                    else sweep.learning_rate
                ),
                seed=sweep.seed,
            )
            name = recipe.name(d_in)
            found[name] = Planned(name, recipe, d_in)
    return list(found.values())
