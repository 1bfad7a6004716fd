"""Find a model's files, load them quietly, and say in one line why that failed."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safesail.errors import ModelError
from safesail.language_model._dtype import resolve_dtype
from safesail.language_model._files import fingerprint_folder, model_folder
from safesail.language_model._twin import TwinLoader
from safesail.language_model.names import official_name


@dataclass(frozen=True)
class LoadedModel:
    """A model twice over one set of weights, with a tokenizer, and what identifies them.

    Attributes:
        bridge: a TransformerBridge.
        plain: the same model as transformers runs it.
        tokenizer: one that prepends no BOS.
        name: hub name, or the folder's name.
        fingerprint: changes when the model's files do.
        folder: where the model lies; None where it came from the hub.
    """

    bridge: Any
    plain: Any
    tokenizer: Any
    name: str
    fingerprint: str
    folder: Path | None


def load(reference: str, *, folder: Path | None, device: str, dtype: str) -> LoadedModel:
    """Load a model from a folder or, where there is none, from the Hugging Face hub.

    Raises:
        ModelError: see `LanguageModel.load`.
    """
    path = model_folder(reference, folder)
    if path is not None:
        return _load_folder(path, device, dtype)
    return _load_hub(reference, device, dtype)


def resolve_device(device: str) -> str:
    """Device by name; `auto` is a GPU where there is one.

    Raises:
        ModelError: no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {device!r} is not available here ({first_line(error)}): "
            'set `model.device` to "auto" or "cpu"'
        ) from error
    return device


def first_line(error: BaseException) -> str:
    """What an exception of a library says, cut to one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _load_folder(path: Path, device: str, dtype: str) -> LoadedModel:
    fingerprint = fingerprint_folder(path)
    try:
        precision = resolve_dtype(dtype, device, path / "config.json")
        bridge, plain, tokenizer = _boot(str(path), device, precision, local=True)
    except ModelError:
        raise
    except Exception as error:  # transformers and safetensors raise classes of many kinds
        raise ModelError(
            f"cannot load model {path}: {first_line(error)}; are its files whole?"
        ) from error
    return LoadedModel(bridge, plain, tokenizer, path.name, fingerprint, path)


def _load_hub(name: str, device: str, dtype: str) -> LoadedModel:
    from huggingface_hub import hf_hub_download

    name = official_name(name)
    try:
        with _quiet():
            # One question first: where there is no network, each costs half a minute of retries.
            configuration = hf_hub_download(name, "config.json")
        precision = resolve_dtype(dtype, device, Path(configuration))
        bridge, plain, tokenizer = _boot(name, device, precision, local=False)
    except ModelError:
        raise
    except Exception as error:  # as above, and those of huggingface_hub and its HTTP client
        raise ModelError(
            f"cannot load model {name!r} from the Hugging Face hub: {first_line(error)}; check the "
            "name and the network, and for a gated model accept its licence and `hf auth login`"
        ) from error
    # The hub's cache keeps a file in a folder named after the commit.
    commit = Path(configuration).parent.name
    return LoadedModel(bridge, plain, tokenizer, name, f"{name}@{commit}", None)


def _boot(source: str, device: str, dtype: torch.dtype, *, local: bool) -> tuple[Any, Any, Any]:
    """Bridge, plain model and tokenizer."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    with _quiet() as messages:
        # The bridge's own tokenizer is a copy that prepends BOS; texts are tokenised by this one.
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer of {source} has no fast version (tokenizer.json), which tells "
                "where in the text a token lies: convert it with transformers"
            )
        loader: Any = TwinLoader(device)
        bridge = TransformerBridge.boot_transformers(
            source, device=device, dtype=dtype, model_class=loader
        )
    missing = [found for message in messages for found in _missing_weights(message)]
    if missing:
        raise ModelError(
            f"the weights of {source} lack {len(missing)} that its config.json calls for "
            f"({missing[0]} ...): config.json and weights are of different models"
        )
    return bridge.eval(), loader.plain, tokenizer


def _missing_weights(message: str) -> list[str]:
    """Names of weights that a loading report of transformers marks as left at random."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message)
    return re.findall(r"^\s*(\S+)\s*\|\s*MISSING\b", plain, flags=re.MULTILINE)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep transformers and TransformerLens from the terminal; yields what they logged."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    logger, hub_logger = logging.getLogger("transformers"), logging.getLogger("huggingface_hub")
    collector = _Collector()
    level, handlers, propagate = logger.level, logger.handlers, logger.propagate
    bars = transformers_logging.is_progress_bar_enabled()
    root_level, hub_level = logging.root.level, hub_logger.level
    try:
        logger.handlers, logger.propagate = [collector], False
        logger.setLevel(logging.WARNING)
        # TransformerLens warns through the root logger.
        logging.root.setLevel(logging.ERROR)
        hub_logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers_logging.disable_progress_bar()
            # Downloads last minutes: their bars stay.
            enable_progress_bars()
            yield collector.messages
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
        logging.root.setLevel(root_level)
        hub_logger.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
