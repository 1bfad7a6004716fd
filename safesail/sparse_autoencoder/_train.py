"""Train an SAE with SAELens' trainer, so that a killed training goes on where it was."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from safesail.errors import CandidateError, InputError, StorageError
from safesail.sparse_autoencoder._train_architectures import untrained_sae
from safesail.sparse_autoencoder._train_data import Activations
from safesail.sparse_autoencoder._train_recipe import Recipe

_WATCH_EVERY = 20
_EVALUATION_BATCH = 2048
_SECONDS_FILE = "seconds.json"


@dataclass(frozen=True)
class TrainedSae:
    """How good a trained SAE is at held-out tokens, in the form in which it is saved.

    Attributes:
        loss: squared error summed over the coordinates, inputs scaled to variance 1 per
            coordinate, plus the architecture's sparsity penalty.
        l0: mean number of active features per token.
        fvu: fraction of variance unexplained.
        dead_share: share of features that never fire.
        seconds: of training, interruptions left out.
    """

    loss: float
    l0: float
    fvu: float
    dead_share: float
    seconds: float


@dataclass(frozen=True)
class TrainingStep:
    """Where a training stands: step of steps, and loss and L0 of its batch."""

    step: int
    steps: int
    loss: float
    l0: float


def train_sae(
    recipe: Recipe,
    activations: Activations,
    heldout: Tensor,
    folder: Path,
    *,
    about: Mapping[str, Any],
    device: str = "cpu",
    checkpoints: Path | None = None,
    checkpoint_every: int = 500,
    watch: Callable[[TrainingStep], None] | None = None,
) -> TrainedSae:
    """Train an SAE and save it in SAELens' inference form, decoder rows of length 1.

    Inputs are scaled to variance 1 per coordinate, and the scale is folded into the saved
    weights: activations of one layer can be a hundred times those of another, and a learning
    rate, an L1 coefficient or a JumpReLU bandwidth would mean something else at each. The decoder
    bias starts at the mean.

    Args:
        recipe: what to train.
        activations: content tokens at the recipe's hook point.
        heldout: float32 [tokens, d_in], on which the result is judged; not trained on.
        folder: where cfg.json and sae_weights.safetensors go, whole or not at all; replaced.
        about: metadata of cfg.json: model_name, prepend_bos, context_size, and more.
        device: where to train.
        checkpoints: folder for what lets a killed training go on; removed at the end. Without
            it, nothing is kept.
        checkpoint_every: most steps that a kill loses.
        watch: called now and then with where the training stands.

    Raises:
        InputError: fewer tokens than a batch, or tokens that do not vary.
        CandidateError: the loss is no longer a number.
        StorageError: something cannot be written.
    """
    if activations.tokens < recipe.batch:
        raise InputError(
            f"{activations.tokens} tokens at {recipe.hook_point} do not fill a batch of "
            f"{recipe.batch}: give more text or a smaller batch"
        )
    mean, deviation = activations.moments()
    if not (math.isfinite(deviation) and deviation > 0):
        raise InputError(f"activations at {recipe.hook_point} do not vary, or are not finite")
    scale = 1 / deviation
    trainer = _trainer(recipe, activations.d_in, about, device)
    trainer.activation_scaler.scaling_factor = scale
    trainer.sae.b_dec.data = (mean * scale).to(device)
    started = perf_counter() - (_resume(trainer, checkpoints) if checkpoints else 0.0)
    batches = activations.batches(recipe.batch, recipe.seed, trainer.n_training_steps)
    while trainer.n_training_steps < recipe.steps:
        output = trainer.step(next(batches))
        trainer.n_training_steps += 1
        step = trainer.n_training_steps
        if step % _WATCH_EVERY == 0 or step == recipe.steps:
            loss = output.loss.item()
            if not math.isfinite(loss):
                raise CandidateError(
                    f"training {recipe.name(activations.d_in)} failed at step {step}: its loss is "
                    f"{loss}; lower the learning rate, {recipe.learning_rate:g}"
                )
            if watch:
                l0 = float((output.feature_acts > 0).sum(1).float().mean())
                watch(TrainingStep(step, recipe.steps, loss, l0))
        if checkpoints and step % checkpoint_every == 0:
            _write_checkpoint(trainer, checkpoints, perf_counter() - started)
    seconds = perf_counter() - started
    sae = trainer.sae.eval()
    loss = _heldout_loss(trainer, heldout.to(device))
    sae.fold_activation_norm_scaling_factor(scale)
    sae.fold_W_dec_norm()
    work = checkpoints or folder.parent / f".{folder.name}.partial"
    trained = _save(sae, loss, seconds, heldout.to(device), work / "finished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(work / "finished", folder)
        shutil.rmtree(work)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return trained


def _trainer(recipe: Recipe, d_in: int, about: Mapping[str, Any], device: str) -> Any:
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    config = SAETrainerConfig(
        total_training_samples=recipe.steps * recipe.batch,
        train_batch_size_samples=recipe.batch,
        lr=recipe.learning_rate,
        lr_end=recipe.learning_rate / 10,
        lr_scheduler_name="cosineannealing",
        # Features are revived within a training, however short.
        dead_feature_window=min(1000, max(1, recipe.steps // 5)),
        device=device,
    )
    # Driven step by step: `fit` draws its data without a place to resume at.
    return SAETrainer(config, untrained_sae(recipe, d_in, about, device), iter(()))


def _write_checkpoint(trainer: Any, folder: Path, seconds: float) -> None:
    """Weights, optimiser and counts as SAELens writes them, under a name that ends in the step."""
    name = f"step-{trainer.n_training_steps:09d}"
    partial = folder / "partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        trainer.save_checkpoint(partial.name, base_path=folder)
        (partial / _SECONDS_FILE).write_text(json.dumps(seconds), encoding="utf-8")
        _sync(partial)
        os.replace(partial, folder / name)
        for earlier in _checkpoints(folder)[:-1]:
            shutil.rmtree(earlier)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk has many names
        raise _unwritable(folder, error) from error


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _resume(trainer: Any, folder: Path) -> float:
    """Load the last checkpoint, if there is one; returns the seconds trained so far."""
    found = _checkpoints(folder)
    if not found:
        return 0.0
    try:
        trainer.sae.load_weights_from_checkpoint(found[-1])
        # SAELens leaves torch.load's `weights_only` at its default, true.
        trainer.load_trainer_state(found[-1])
        return float(json.loads((found[-1] / _SECONDS_FILE).read_text(encoding="utf-8")))
    except Exception as error:  # SAELens, safetensors and torch raise classes of many kinds
        raise StorageError(
            f"cannot read checkpoint {found[-1]}: {str(error).splitlines()[0][:200]}; "
            "delete it and run again"
        ) from error


@torch.no_grad()
def _heldout_loss(trainer: Any, heldout: Tensor) -> float:
    """Loss at held-out tokens, the revival of dead features left out."""
    from sae_lens.saes.sae import TrainStepInput

    total = 0.0
    # BatchTopK moves its threshold on every batch that it sees.
    buffers = {name: value.clone() for name, value in trainer.sae.named_buffers()}
    for rows in heldout.split(_EVALUATION_BATCH):
        output = trainer.sae.training_forward_pass(
            TrainStepInput(
                sae_in=trainer.activation_scaler(rows),
                dead_neuron_mask=None,
                coefficients=trainer.get_coefficients(),
                n_training_steps=trainer.n_training_steps,
                is_logging_step=False,
            )
        )
        total += float(output.loss) * len(rows)
    trainer.sae.load_state_dict(buffers, strict=False)
    return total / len(heldout)


@torch.no_grad()
def _save(sae: Any, loss: float, seconds: float, heldout: Tensor, folder: Path) -> TrainedSae:
    """Save for inference with its figures, which are those of the saved form."""
    from sae_lens import SAE

    try:
        shutil.rmtree(folder, ignore_errors=True)
        sae.save_inference_model(folder)
        saved: Any = SAE.load_from_disk(folder, device=str(heldout.device), dtype="float32")
        saved.turn_off_forward_pass_hook_z_reshaping()
        l0, fvu, dead_share = _judge(saved, heldout)
        trained = TrainedSae(loss, l0, fvu, dead_share, seconds)
        sae.cfg.metadata.l0 = l0
        sae.cfg.metadata.safesail_figures = asdict(trained)
        sae.save_inference_model(folder)
        _sync(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return trained


def _judge(sae: Any, heldout: Tensor) -> tuple[float, float, float]:
    """L0, FVU and dead share of a saved SAE."""
    fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=heldout.device)
    error = variance = 0.0
    mean = heldout.mean(0, dtype=torch.float64)
    for rows in heldout.split(_EVALUATION_BATCH):
        codes = sae.encode(rows)
        fired += (codes > 0).sum(0)
        error += float((rows - sae.decode(codes)).square().sum(dtype=torch.float64))
        variance += float((rows - mean).square().sum())
    return (
        float(fired.sum()) / len(heldout),
        error / variance,
        float((fired == 0).double().mean()),
    )


def _sync(folder: Path) -> None:
    """Make a folder's files durable before a rename makes them count."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _unwritable(folder: Path, error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return StorageError(
        f"could not write {folder}: {reason}; free space or mend permissions, then run again: "
        "training goes on from its last checkpoint"
    )
