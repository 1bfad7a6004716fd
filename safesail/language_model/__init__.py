"""A causal language model up to one hook point: load, tokenise, read activations in batches.

The names below load on first use, so that names of models can be compared without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.language_model._depth import count_layers
    from safesail.language_model._files import fingerprint_model
    from safesail.language_model._full_forward import Answer, FullForward
    from safesail.language_model._logits import token_text
    from safesail.language_model._model import LanguageModel
    from safesail.language_model._prompts import (
        cut,
        token_strings,
        whole_text,
        with_answer,
        word_token,
    )
    from safesail.language_model._sinks import Observation
    from safesail.language_model._text import TokenBatch, TokenizedText

__all__ = [
    "Answer",
    "FullForward",
    "LanguageModel",
    "Observation",
    "TokenBatch",
    "TokenizedText",
    "count_layers",
    "cut",
    "fingerprint_model",
    "token_strings",
    "token_text",
    "whole_text",
    "with_answer",
    "word_token",
]

_HOMES = {
    "Answer": "_full_forward",
    "FullForward": "_full_forward",
    "LanguageModel": "_model",
    "Observation": "_sinks",
    "TokenBatch": "_text",
    "TokenizedText": "_text",
    "count_layers": "_depth",
    "cut": "_prompts",
    "fingerprint_model": "_files",
    "token_strings": "_prompts",
    "token_text": "_logits",
    "whole_text": "_prompts",
    "with_answer": "_prompts",
    "word_token": "_prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
