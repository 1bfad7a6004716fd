"""SAELens' training form of each architecture, with settings that suit inputs of variance 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from safesail.sparse_autoencoder._train_recipe import Recipe


def untrained_sae(recipe: Recipe, d_in: int, about: Mapping[str, Any], device: str = "cpu") -> Any:
    """SAELens' training SAE of a recipe with its first weights."""
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata

    saelens_name = {"matryoshka": "matryoshka_batchtopk"}.get(
        recipe.architecture, recipe.architecture
    )
    sae_class, config_class = get_sae_training_class(saelens_name)
    heads = recipe.hook_point.endswith("attn.hook_z")
    config = config_class(
        d_in=d_in,
        d_sae=recipe.width,
        device=device,
        reshape_activations="hook_z" if heads else "none",
        # Decoder rows of length 1 and the encoder their transpose (Gao et al., arXiv 2406.04093):
        # a short training from SAELens' 0.1 leaves up to half of the features dead, or, under an
        # L1 penalty, three times as many active at the same error.
        decoder_init_norm=1.0,
        metadata=SAEMetadata(hook_name=recipe.hook_point, **about),
        **_architecture_settings(recipe),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return sae_class(config)


def _architecture_settings(recipe: Recipe) -> dict[str, Any]:
    """Fields of the SAELens configuration that depend on the architecture."""
    warm_up = recipe.steps // 5
    if recipe.architecture in ("standard", "gated"):
        return {"l1_coefficient": recipe.sparsity, "l1_warm_up_steps": warm_up}
    if recipe.architecture == "topk":
        return {"k": int(recipe.sparsity)}
    if recipe.architecture == "jumprelu":
        # The penalty of Gemma Scope 2, which aims at an L0: a plain one has a coefficient that
        # must be found anew for every model. SAELens' other defaults leave the L0 of a short
        # training far above its aim (345 for 16 on the lab's model), these near it (18).
        return {
            "jumprelu_sparsity_loss_mode": "quadratic",
            "target_l0": recipe.sparsity,
            "l0_coefficient": 0.3,
            "l0_warm_up_steps": warm_up,
            "jumprelu_bandwidth": 1.0,
            "jumprelu_init_threshold": 1.0,
            "jumprelu_ste_to_input": True,
        }
    # The threshold that stands for k after training is a moving average that starts at 0: in a
    # short training it must move faster, or more features than k would fire.
    settings = {"k": recipe.sparsity, "topk_threshold_lr": min(1.0, max(0.01, 10 / recipe.steps))}
    if recipe.architecture == "batchtopk":
        return settings
    levels = {max(1, recipe.width // share) for share in (16, 8, 4, 2, 1)}
    return {**settings, "matryoshka_widths": sorted(levels)}
