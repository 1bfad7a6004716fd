"""How many tokens go through the model at once: found by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from safesail.language_model import TokenizedText

# A run over fewer tokens is over before a measurement has paid.
WORTH_MEASURING = 200_000
USUAL_TOKENS = 4096
_SMALLEST, _LARGEST = 512, 131_072
_FEW = 64
# A larger batch must gain this much: it needs more memory, and loses more when a run is killed.
_LEAST_GAIN = 1.05
_LONGEST_SECONDS = 5.0


@dataclass(frozen=True)
class BatchSize:
    """Most tokens of a batch, and how fast they went; NaN where that was not measured."""

    tokens: int
    tokens_per_second: float = float("nan")


def measure_batch_size(
    texts: Sequence[TokenizedText], run: Callable[[Sequence[TokenizedText], int], None]
) -> BatchSize:
    """Double the batch until that gains less than 5 % speed, memory ends, or 5 seconds are over.

    The first batch tried holds 512 tokens, or the longest text. Before it, two calls with few
    tokens: one that pays for loading and is not counted, one that tells how fast the model is. No
    call is begun that would, at the speed of the one before, end later than 5 seconds after that.

    Args:
        texts: of the corpus.
        run: sends texts through the model in batches of at most so many tokens, to the end.

    Raises:
        Exception: what `run` raises on the first call.
    """
    run(_some(texts, _FEW), _FEW)
    began = time.monotonic()
    speed = _speed(_some(texts, _FEW), _FEW, run)
    longest = max(len(text.token_ids) for text in texts)
    size = max(_SMALLEST, 1 << longest.bit_length())
    best = BatchSize(size)
    while size <= min(_LARGEST, _tokens(texts)):
        taken = _some(texts, size)
        if time.monotonic() - began + _tokens(taken) / speed > _LONGEST_SECONDS:
            break
        try:
            speed = _speed(taken, size, run)
        except torch.OutOfMemoryError:
            break
        # Of the first there is nothing to gain on: its best is NaN.
        if speed < _LEAST_GAIN * best.tokens_per_second:
            break
        best = BatchSize(size, speed)
        size *= 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return best


def _speed(
    texts: Sequence[TokenizedText],
    size: int,
    run: Callable[[Sequence[TokenizedText], int], None],
) -> float:
    began = time.monotonic()
    run(texts, size)
    return _tokens(texts) / (time.monotonic() - began)


def _tokens(texts: Sequence[TokenizedText]) -> int:
    return sum(len(text.token_ids) for text in texts)


def _some(texts: Sequence[TokenizedText], tokens: int) -> list[TokenizedText]:
    """The first texts, up to a number of tokens; at least one."""
    taken: list[TokenizedText] = []
    seen = 0
    for text in texts:
        seen += len(text.token_ids)
        if taken and seen > tokens:
            break
        taken.append(text)
    return taken
