"""The base model as transformers has it, to be adapted and to answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._quiet import quiet
from safesail.alignment._sites import check_modules
from safesail.errors import AlignmentError, ModelError, StorageError

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel


@dataclass(frozen=True)
class Base:
    """What a base is loaded from, so that the model that read activations need not stay.

    Attributes:
        name: of the model.
        folder: of its files; None where the hub's cache has them.
        device: where it runs.
        dtype: torch's name of its precision.
        tokenizer: of transformers.
        fingerprint: of the model, as other results of the study have it.
    """

    name: str
    folder: Path | None
    device: str
    dtype: str
    tokenizer: Any
    fingerprint: str

    @classmethod
    def of(cls, model: LanguageModel) -> Base:
        """The base behind a loaded model."""
        return cls(
            model.name,
            model.folder,
            model.device,
            model.dtype,
            model.tokenizer,
            model.fingerprint,
        )

    @cached_property
    def digest(self) -> str:
        """Changes with all that decides what it answers: every byte of weights, tokenizer, chat
        template and settings.

        Raises:
            StorageError: a file cannot be read.
        """
        if self.folder is None:
            return self.fingerprint  # of the hub: its commit
        found = hashlib.sha256()
        try:
            for path in sorted(self.folder.iterdir()):
                if path.is_file():
                    with path.open("rb") as file:
                        content = hashlib.file_digest(file, "sha256").hexdigest()
                    found.update(f"{path.name}\0{content}\0".encode())
        except OSError as error:
            raise StorageError(f"could not read {error.filename}: {error.strerror}") from error
        return found.hexdigest()[:16]

    def check_adaptable(self, modules: Sequence[str]) -> None:
        """That the model has modules to adapt and a precision to train in, before it is loaded.

        Args:
            modules: roles.

        Raises:
            AlignmentError: a model of an unknown kind; an unknown role, or one that it has not; or
                a model in float16.
        """
        from transformers import AutoConfig

        if self.dtype == "float16":
            raise AlignmentError(
                "the model is in float16, where small gradients become 0: set `model.dtype` in "
                "safesail.toml to bfloat16 or float32"
            )

        kind = AutoConfig.from_pretrained(self.folder or self.name).model_type
        check_modules(kind, modules)

    def load(self) -> Any:
        """The causal language model of transformers, anew, on its device, to infer.

        Raises:
            ModelError: transformers cannot load it.
        """
        import torch
        from transformers import AutoModelForCausalLM

        try:
            with quiet():
                base = AutoModelForCausalLM.from_pretrained(
                    self.folder or self.name, dtype=getattr(torch, self.dtype)
                )
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"cannot load {self.name!r} to be adapted: {reason}") from error
        return base.to(self.device).eval()
