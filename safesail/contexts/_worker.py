"""What runs in the processes that an engine shares work out among."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from numpy.typing import NDArray

from safesail.contexts._chunks import Chunk, ahead
from safesail.contexts._pass import Pass
from safesail.contexts._sketch import Sketch

Arrays = dict[str, dict[str, NDArray]]
"""By name of the SAE, a sketch as arrays."""


class Worker:
    """Sees pieces in a process of its own, where Ray makes an actor of it."""

    def __init__(self, build: Callable[[], Pass], threads: int) -> None:
        self._build, self._threads = build, threads
        self._passing: Pass | None = None

    def see(self, piece: Sequence[Chunk], tokens_per_batch: int) -> tuple[float, Arrays]:
        """What some chunks show, and how many seconds that took."""
        if self._passing is None:
            torch.set_num_threads(self._threads)
            self._passing = self._build()
        passing, began = self._passing, time.monotonic()
        sketches = passing.begin()
        texts = ((c.number, passing.tokenize(c.documents, c.tokens)) for c in piece)
        for number, found in ahead(texts):
            passing.see_chunk(number, found, sketches, tokens_per_batch)
        arrays = {name: sketch.arrays() for name, sketch in sketches.items()}
        return time.monotonic() - began, arrays


def merged(one: Arrays, other: Arrays) -> Arrays:
    """What two parts of the corpus show together."""
    found = {}
    for name, arrays in one.items():
        sketch = Sketch.from_arrays(arrays)
        sketch.merge(Sketch.from_arrays(other[name]))
        found[name] = sketch.arrays()
    return found
