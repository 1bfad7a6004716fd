"""The lab's candidate autoencoders: which there are, and their training with SAELens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

if TYPE_CHECKING:
    from sae_lens import SAE

MODEL_NAME = "safesail-lab"
WIDTH = 1024
CONTEXT = 128
WEIGHTS_FILE = "sae_weights.safetensors"
Architecture = Literal["topk", "batchtopk", "standard"]


@dataclass(frozen=True, slots=True)
class AutoencoderRecipe:
    """One candidate: what it reads, its architecture, and k (or the L1 coefficient) of it."""

    layer: int
    site: Literal["resid", "mlp"]
    architecture: Architecture
    sparsity: float

    @property
    def name(self) -> str:
        """Folder name, e.g. `layer2-resid-topk16` or `layer1-resid-standard`."""
        number = "" if self.architecture == "standard" else f"{self.sparsity:g}"
        return f"layer{self.layer}-{self.site}-{self.architecture}{number}"

    @property
    def hook_point(self) -> str:
        """TransformerLens name of the activation that the candidate reads."""
        return f"blocks.{self.layer}.hook_{'resid_post' if self.site == 'resid' else 'mlp_out'}"


RECIPES: tuple[AutoencoderRecipe, ...] = (
    AutoencoderRecipe(0, "resid", "topk", 16),
    AutoencoderRecipe(1, "resid", "topk", 8),
    AutoencoderRecipe(1, "resid", "topk", 16),
    AutoencoderRecipe(1, "resid", "standard", 4.0),
    AutoencoderRecipe(1, "mlp", "topk", 16),
    AutoencoderRecipe(2, "resid", "topk", 4),
    AutoencoderRecipe(2, "resid", "topk", 8),
    AutoencoderRecipe(2, "resid", "topk", 16),
    AutoencoderRecipe(2, "resid", "topk", 32),
    AutoencoderRecipe(2, "resid", "topk", 64),
    AutoencoderRecipe(2, "resid", "batchtopk", 16),
    AutoencoderRecipe(2, "resid", "standard", 4.0),
    AutoencoderRecipe(2, "mlp", "topk", 16),
    AutoencoderRecipe(3, "resid", "topk", 16),
)


def untrained_autoencoder(recipe: AutoencoderRecipe, d_model: int, seed: int) -> Any:
    """A SAELens training autoencoder with random weights, as its architecture initialises them."""
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        StandardTrainingSAE,
        StandardTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "d_in": d_model,
        "d_sae": WIDTH,
        "device": "cpu",
        "normalize_activations": "none",
        "metadata": SAEMetadata(
            model_name=MODEL_NAME,
            hook_name=recipe.hook_point,
            prepend_bos=True,
            context_size=CONTEXT,
        ),
    }
    if recipe.architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=int(recipe.sparsity), **shape))
    if recipe.architecture == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=recipe.sparsity, **shape))
    return StandardTrainingSAE(
        StandardTrainingSAEConfig(l1_coefficient=recipe.sparsity, l1_warm_up_steps=200, **shape)
    )


def _shuffled_batches(activations: Tensor, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(activations), generator=generator)
        for first in range(0, len(order) - size + 1, size):
            yield activations[order[first : first + size]]


def train_autoencoder(
    recipe: AutoencoderRecipe,
    activations: Tensor,
    folder: Path,
    *,
    steps: int,
    seed: int,
    batch: int = 512,
    learning_rate: float = 1e-3,
) -> None:
    """Trains on content-token activations [tokens, d_model] and saves for inference to `folder`.

    Weights are stored in float16, which halves the folder; `cfg.json` still says float32, and
    SAELens loads them as such.
    """
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    autoencoder = untrained_autoencoder(recipe, activations.shape[1], seed)
    trainer: Any = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * batch,
            train_batch_size_samples=batch,
            lr=learning_rate,
            lr_end=learning_rate / 10,
            lr_scheduler_name="cosineannealing",
            dead_feature_window=200,
            device="cpu",
        ),
        autoencoder,
        _shuffled_batches(activations, batch, seed),
    )
    trainer.fit().save_inference_model(str(folder))
    weights = load_file(folder / WEIGHTS_FILE)
    save_file({name: value.half() for name, value in weights.items()}, folder / WEIGHTS_FILE)


def load_autoencoder(folder: Path) -> SAE[Any]:
    """A saved autoencoder, float32 on the CPU."""
    from sae_lens import SAE

    loaded: SAE[Any] = SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
    return loaded
