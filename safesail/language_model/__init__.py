"""A causal language model up to one hook point: load, tokenise, read activations in batches.

The names below load on first use, so that names of models can be compared without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.language_model._files import fingerprint_model
    from safesail.language_model._model import LanguageModel
    from safesail.language_model._sinks import Observation
    from safesail.language_model._text import TokenBatch, TokenizedText

__all__ = ["LanguageModel", "Observation", "TokenBatch", "TokenizedText", "fingerprint_model"]

_HOMES = {
    "LanguageModel": "_model",
    "Observation": "_sinks",
    "TokenBatch": "_text",
    "TokenizedText": "_text",
    "fingerprint_model": "_files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
