"""How many tokens go through the model at once: found by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from safesail.language_model import TokenizedText

# A run of fewer tokens is over before a measurement has paid.
WORTH_MEASURING = 200_000
USUAL_TOKENS = 4096
_SMALLEST, _LARGEST = 512, 131_072
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

    Args:
        texts: of the corpus.
        run: sends texts through the model in batches of at most so many tokens, to the end.

    Raises:
        Exception: what `run` raises on the smallest batch.
    """
    run(_some(texts, _SMALLEST // 8), _SMALLEST // 8)  # the first call of all pays for loading
    best = BatchSize(_SMALLEST, _speed(texts, _SMALLEST, run))
    began, size = time.monotonic(), 2 * _SMALLEST
    while size <= _LARGEST and time.monotonic() - began < _LONGEST_SECONDS:
        try:
            speed = _speed(texts, size, run)
        except torch.OutOfMemoryError:
            break
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
    taken = _some(texts, size)
    began = time.perf_counter()
    run(taken, size)
    return sum(len(text.token_ids) for text in taken) / (time.perf_counter() - began)


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
