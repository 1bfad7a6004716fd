"""Train an adapter on prompts and answers, so that a killed training goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import torch

from safesail.alignment._curve import loss_csv, plot_loss
from safesail.alignment._data import Example, encode_examples
from safesail.alignment._memory import is_out_of_memory
from safesail.alignment._plan import import_peft
from safesail.alignment._provenance import base_checksum
from safesail.alignment._quiet import quiet
from safesail.alignment._saving import check_free, save_adapter
from safesail.errors import AlignmentError, StorageError
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from peft import PeftModel

    from safesail.alignment._trainer import LossPoint

LOSS_TABLE = "loss.csv"
LOSS_FIGURE = "loss.png"
_SETTINGS = "safesail_training.json"


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. AdamW, gradients clipped.

    Attributes:
        steps: of the optimiser.
        batch_size: examples that are in memory at once.
        accumulate: such batches per step.
        learning_rate: the largest.
        schedule: of the learning rate after the warm-up.
        warmup: share of the steps in which it rises.
        weight_decay: of AdamW.
        clip: largest L2 norm of a gradient.
        max_tokens: of an example; see `encode_examples`.
        seed: of the order of the examples, and of dropout where the model has some.
        checkpoint_every: most steps that a kill loses.
    """

    steps: int = 200
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 2e-4
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    checkpoint_every: int = 50


@dataclass(frozen=True)
class Trained:
    """What a training did.

    Attributes:
        loss: at every step.
        examples: that were trained on.
        cut: those of them that lost the end of their answer.
        left_out: others, whose prompt left no room for an answer.
        seconds: since the training was last started.
    """

    loss: tuple[LossPoint, ...]
    examples: int
    cut: int
    left_out: int
    seconds: float


def train_adapter(
    model: PeftModel,
    tokenizer: Any,
    examples: Sequence[Example],
    folder: Path,
    *,
    options: TrainingOptions | None = None,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    watch: Callable[[LossPoint, int], None] | None = None,
) -> Trained:
    """Train an adapter and save it with its loss curve, `loss.csv` and `loss.png`.

    Checkpoints lie beside the folder until the end, in `.NAME.training`; each is an adapter of
    its own. The same call after an interruption goes on from the last of them, to the weights that
    an uninterrupted training would have had.

    Args:
        model: of `make_adapter`, `make_plain_adapter` or `load_adapter`; trained in place.
        tokenizer: of transformers.
        examples: prompts and answers, benign ones among them: see `mix`.
        folder: of the adapter.
        options: how to train.
        overwrite: replace an adapter that is there, and begin anew where a training with other
            settings was interrupted.
        about: what else the provenance says of the training, as JSON.
        files: what else goes into the folder, by name.
        watch: called with each step and the number of steps.

    Raises:
        AlignmentError: the folder exists; a training with other settings was interrupted there;
            the base is in float16 or on another GPU than the first; a loss or a weight is no
            longer a number (the last good checkpoint is kept); memory does not suffice; see also
            `encode_examples`.
        InputError: no example has room for an answer.
        StorageError: the disk is full or the folder not writable.
    """
    options = options or TrainingOptions()
    check_free(folder, overwrite=overwrite)
    work = folder.parent / f".{folder.name}.training"
    trained = fit(
        model, tokenizer, examples, work, options=options, overwrite=overwrite, watch=watch
    )
    record = {
        **(about or {}),
        **asdict(options),
        "examples": trained.examples,
        "examples_digest": _digest_examples(examples),
        "cut": trained.cut,
        "left_out": trained.left_out,
        "last_loss": trained.loss[-1].loss,
    }
    written = {
        LOSS_TABLE: loss_csv(trained.loss),
        LOSS_FIGURE: plot_loss(trained.loss),
        **(files or {}),
    }
    save_adapter(model, folder, training=record, files=written, overwrite=overwrite)
    shutil.rmtree(work, ignore_errors=True)
    return trained


def fit(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    work: Path,
    *,
    options: TrainingOptions,
    overwrite: bool = False,
    watch: Callable[[LossPoint, int], None] | None = None,
) -> Trained:
    """Train whatever of a model is trainable, an adapter or all of it, in place.

    The loss is the cross-entropy of the answers' tokens alone.

    Args:
        model: of transformers or PEFT.
        tokenizer: as for `train_adapter`.
        examples: as for `train_adapter`.
        work: folder of checkpoints; it stays.
        options: how to train.
        overwrite: begin anew where a training with other settings was interrupted.
        watch: as for `train_adapter`.

    Raises:
        AlignmentError: as `train_adapter`; what is trainable is not in float32.
        InputError: as `train_adapter`.
        StorageError: as `train_adapter`.
    """
    import_peft()
    from safesail.alignment._trainer import (
        NotFiniteError,
        check_device,
        check_finite,
        check_precision,
        last_checkpoint,
        make_trainer,
        points_of,
    )

    started = perf_counter()
    check_precision(model)
    check_device(next(model.parameters()).device)
    encoded = encode_examples(examples, tokenizer, max_tokens=_most_tokens(model, options))
    _settle(work, _settings(model, examples, options), overwrite=overwrite)
    padding = next(
        (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0
    )
    trainer = make_trainer(model, encoded.examples, padding, work, options, watch)
    checkpoint = last_checkpoint(work)
    try:
        with quiet():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        check_finite(model, options.steps)
    except NotFiniteError as error:
        kept = last_checkpoint(work)
        rest = (
            "no checkpoint was made before"
            if kept is None
            else f"until then the last good checkpoint is kept in {kept}"
        )
        raise AlignmentError(
            f"training stopped: {error}; lower the learning rate, {options.learning_rate:g}, and "
            f"begin anew with --overwrite ({rest})"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise AlignmentError(
            f"out of memory at a batch size of {options.batch_size} and {options.max_tokens} "
            "tokens an example: lower the batch size and accumulate more batches a step"
        ) from error
    except OSError as error:
        raise StorageError(
            f"could not write {work}: {error.strerror or error}; free space or mend permissions, "
            "then run again: training goes on from its last checkpoint"
        ) from error
    finally:
        model.eval()
    return Trained(
        points_of(trainer),
        len(encoded.examples),
        encoded.cut,
        encoded.left_out,
        perf_counter() - started,
    )


def _most_tokens(model: Any, options: TrainingOptions) -> int:
    fit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(options.max_tokens, fit or options.max_tokens)


def _settings(model: Any, examples: Sequence[Example], options: TrainingOptions) -> dict[str, Any]:
    """What a training is told apart by, its beginning included."""
    return {
        **asdict(options),
        "examples": _digest_examples(examples),
        "base": base_checksum(model),
        "adapter": _digest_adapter(model),
    }


def _settle(work: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Take up the interrupted training of these settings, or begin one."""
    path = work / _SETTINGS
    found = None
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
    if found is not None and found != settings:
        changed = sorted(key for key in settings if settings[key] != found.get(key))
        if not overwrite:
            raise AlignmentError(
                f"a training with other settings ({', '.join(changed)}) was interrupted in "
                f"{work}: run it again as it was, or begin anew with --overwrite"
            )
        # Its contents and not the folder, which may be locked.
        for old in work.iterdir():
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink(missing_ok=True)
    write_bytes(path, json.dumps(settings, indent=1).encode())


def _digest_examples(examples: Sequence[Example]) -> str:
    return hashlib.sha256(json.dumps(examples).encode()).hexdigest()[:16]


def _digest_adapter(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in model.named_parameters():
        if ".lora_" in name:
            digest.update(f"{name}\0{value.requires_grad}\0".encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
