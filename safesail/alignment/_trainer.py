"""transformers' Trainer, quiet, and stopped before what is no longer a number is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from safesail.alignment._data import EncodedExample, collate
from safesail.alignment._lora_files import reason
from safesail.alignment._memory import is_out_of_memory
from safesail.alignment._provenance import Provenance
from safesail.errors import AlignmentError

if TYPE_CHECKING:
    from safesail.alignment._training import TrainingOptions

_STATE = "trainer_state.json"


class LossPoint(NamedTuple):
    """One step of a training.

    Attributes:
        step: its number, from 1.
        loss: mean cross-entropy per answer token of its batch before the step, in nats.
        learning_rate: at the step.
        gradient_norm: L2 norm of the gradient before it is clipped.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


class NotFiniteError(Exception):
    """A loss or a weight is no longer a number."""


class AnswerTrainer(Trainer):
    """The Trainer with checks before and after each step, and checkpoints without pickles of ours.

    Checkpoints hold Trainer's own optimiser and random states, which it reads with
    `weights_only=True`.
    """

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in transformers.

        Raises:
            NotFiniteError: the loss is not.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise NotFiniteError(f"the loss is {float(loss)} at step {step}")
        return loss

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # A step of infinite gradient shows in the loss only one step later.
        check_finite(self.model, self.state.global_step)
        try:
            super()._save_checkpoint(*args, **kwargs)
        # What torch and safetensors say of a full disk is no OSError.
        except (RuntimeError, SafetensorError) as error:
            if is_out_of_memory(error):
                raise
            raise OSError(f"a checkpoint broke off ({reason(error)})") from error

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        if not isinstance(self.model, PeftModel):
            self.model.save_pretrained(str(folder), state_dict=state_dict)
            return
        # Else PEFT asks the hub whether the vocabulary has changed.
        self.model.save_pretrained(str(folder), save_embedding_layers=False)
        provenance = getattr(self.model, "safesail_provenance", None)
        if isinstance(provenance, Provenance):
            provenance.write(folder)


class _Watching(TrainerCallback):
    def __init__(self, watch: Callable[[LossPoint, int], None]) -> None:
        self._watch = watch

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._watch(_point({**logs, "step": state.global_step}), state.max_steps)


def check_finite(model: Any, step: int) -> None:
    """That what is trained still consists of numbers.

    Raises:
        NotFiniteError: it does not.
    """
    for name, value in model.named_parameters():
        if value.requires_grad and not torch.isfinite(value).all():
            raise NotFiniteError(f"{name} is no longer finite after step {step}")


def check_precision(model: Any) -> None:
    """That gradients and steps are not lost to rounding.

    Gradients run through the whole model. In float16 (least positive number 6e-8) small ones become
    0 unless the loss is scaled up, which is not done here; bfloat16 has the range of float32. Its 8
    significant bits do not hold steps of under 1/512 of a weight, so what is trained is in float32.
    PEFT makes its adapters so on whatever base.

    Raises:
        AlignmentError: a weight is in float16, or a trainable one not in float32.
    """
    if any(value.dtype is torch.float16 for value in model.parameters()):
        raise AlignmentError(
            "the model is in float16, where small gradients become 0: load it in bfloat16 or "
            "float32 (`model.dtype`)"
        )
    for name, value in model.named_parameters():
        if value.requires_grad and value.dtype not in (torch.float32, torch.float64):
            kind = str(value.dtype).removeprefix("torch.")
            raise AlignmentError(
                f"{name} is to be trained in {kind}, where small steps round to nothing: load the "
                "model in float32 (`model.dtype`)"
            )


def check_device(device: torch.device) -> None:
    """That Trainer leaves a model on its device: of several GPUs it knows the first alone.

    Raises:
        AlignmentError: it is another GPU.
    """
    if device.type == "cuda" and device.index:
        raise AlignmentError(
            f"the model is on {device}, and training runs on the first GPU alone: name the one "
            "that is meant in CUDA_VISIBLE_DEVICES, and choose the device cuda (`model.device`)"
        )


def make_trainer(
    model: Any,
    examples: list[EncodedExample],
    padding: int,
    work: Path,
    options: TrainingOptions,
    watch: Callable[[LossPoint, int], None] | None,
) -> AnswerTrainer:
    """A Trainer that keeps its checkpoints in `work` and says nothing."""
    on_processor = next(model.parameters()).device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=round(options.warmup * options.steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        seed=options.seed,
        data_seed=options.seed,
        save_strategy="steps",
        save_steps=options.checkpoint_every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_processor,
        use_cpu=on_processor,
    )
    if arguments.n_gpu > 1:
        # Several GPUs would multiply the batch without being asked to.
        arguments._n_gpu = 1
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=lambda rows: collate(rows, padding),
        callbacks=[_Watching(watch)] if watch else None,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def points_of(trainer: AnswerTrainer) -> tuple[LossPoint, ...]:
    """The loss at every step, those before an interruption too."""
    return tuple(_point(entry) for entry in trainer.state.log_history if "loss" in entry)


def last_checkpoint(work: Path) -> Path | None:
    """The latest checkpoint that was written to its end; None where there is none."""
    found = [path for path in work.glob("checkpoint-*") if _is_whole(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    # It is written last.
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return os.access(checkpoint, os.R_OK)


def _point(entry: dict[str, Any]) -> LossPoint:
    return LossPoint(
        int(entry["step"]),
        float(entry["loss"]),
        float(entry["learning_rate"]),
        float(entry["grad_norm"]),
    )
