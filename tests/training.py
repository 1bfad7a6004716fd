"""SAEs really trained, in seconds, on the activations of a model folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from safesail.language_model import LanguageModel


def train_sae(
    folder: Path,
    model_folder: Path,
    texts: Sequence[str],
    hook_point: str,
    *,
    width: int = 128,
    k: int = 8,
    prepend_bos: bool = True,
    steps: int = 150,
    batchtopk: bool = False,
    normalise: bool = False,
) -> Path:
    """Train a TopK SAE with SAELens' trainer at one hook point and save it for inference.

    Args:
        folder: where it is saved.
        model_folder: the model, as transformers saves it.
        texts: what it is trained on.
        hook_point: what it reads.
        width: number of features.
        k: active features per token.
        prepend_bos: whether texts begin with BOS.
        steps: of 256 tokens each.
        batchtopk: train BatchTopK, which is saved as JumpReLU.
        normalise: scale inputs to a mean norm of sqrt(d_in), as SAELens does in training, but do
            not fold that scale into the weights in the end.
    """
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        SAETrainer,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    model = LanguageModel.load(str(model_folder), device="cpu")
    pieces = [
        piece
        for text in texts
        for piece in model.tokenize(text, document="", prepend_bos=prepend_bos)
    ]
    hidden = torch.cat(
        [
            model.activations(batch, [hook_point])[hook_point][batch.content_mask]
            for batch in model.batches(pieces, prepend_bos=prepend_bos)
        ]
    ).clone()
    if normalise:
        hidden *= hidden.shape[1] ** 0.5 / hidden.norm(dim=1).mean()
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield hidden[torch.randint(len(hidden), (256,), generator=generator)]

    torch.manual_seed(0)
    metadata = SAEMetadata(
        model_name=model_folder.name,
        hook_name=hook_point,
        prepend_bos=prepend_bos,
        context_size=model.context_size,
    )
    shape = {"d_in": hidden.shape[1], "d_sae": width, "device": "cpu", "metadata": metadata}
    sae: Any = (
        BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=k, **shape))
        if batchtopk
        else TopKTrainingSAE(TopKTrainingSAEConfig(k=k, **shape))
    )
    # Random models have large means, which would cost most features their life.
    sae.b_dec.data = hidden.mean(0)
    config = SAETrainerConfig(
        total_training_samples=256 * steps,
        train_batch_size_samples=256,
        lr=3e-3,
        lr_end=3e-4,
        device="cpu",
    )
    SAETrainer(config, sae, batches()).fit().save_inference_model(str(folder))
    return folder
