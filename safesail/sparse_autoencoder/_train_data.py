"""Activations to train on: spooled to disk in shuffled parts, read in the same order by all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safesail.errors import StorageError

BYTES_PER_NUMBER = 4
# A part is held in memory whole, in the order of the file and shuffled.
_PART_BYTES = 1 << 27
_SUFFIX = ".float32"


class Activations:
    """Activations of many content tokens at one hook point, in parts that fit in memory.

    Attributes:
        parts: float32 [tokens of the part, d_in] each.
        tokens: in all.
        d_in: numbers per token.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)
        self.tokens = sum(len(part) for part in self.parts)
        self.d_in = int(self.parts[0].shape[1])

    def moments(self) -> tuple[Tensor, float]:
        """Mean [d_in], and the root of the variance per coordinate, averaged over coordinates.

        Taken over the first part that is not empty, which is a random sample of the whole.
        """
        sample = next(part for part in self.parts if len(part))
        mean = sample.mean(0, dtype=torch.float64)
        variance = sum(
            float((rows.double() - mean).square().sum()) for rows in sample.split(1 << 14)
        ) / (len(sample) * self.d_in)
        return mean.float(), math.sqrt(variance)

    def batches(self, size: int, seed: int, first: int = 0) -> Iterator[Tensor]:
        """Batches without end, [size, d_in]: every pass takes all tokens in a new order.

        Args:
            size: tokens of each; what a pass leaves over is not used in that pass.
            seed: of the order.
            first: number of the batch to begin with; those before it cost no time.
        """
        per_pass = self.tokens // size
        for number in count(first // per_pass):
            yield from self._pass(number, size, seed, skipped=(first % per_pass) * size)
            first = 0

    def _pass(self, number: int, size: int, seed: int, skipped: int) -> Iterator[Tensor]:
        waiting = torch.empty(0, self.d_in)
        for part in np.random.default_rng([seed, number]).permutation(len(self.parts)):
            rows = len(self.parts[part])
            if skipped >= rows:
                skipped -= rows
                continue
            order = np.random.default_rng([seed, number, part + 1]).permutation(rows)[skipped:]
            skipped = 0
            waiting = torch.cat([waiting, self.parts[part][torch.from_numpy(order)]])
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]


class ActivationWriter:
    """Spools activations to a folder; each token goes to a part drawn at random.

    So every part is a sample of all texts, and shuffling it in memory shuffles the whole, without
    a read or write at random places.
    """

    def __init__(self, folder: Path, d_in: int, *, tokens: int, seed: int) -> None:
        """Nothing is written yet.

        Args:
            folder: new or empty.
            d_in: numbers per token.
            tokens: about how many will come, for the number of parts.
            seed: of the draw.
        """
        self.tokens = 0
        self._d_in = d_in
        self._generator = np.random.default_rng(seed)
        parts = max(1, -(-tokens * d_in * BYTES_PER_NUMBER // _PART_BYTES))
        self._paths = [folder / f"part-{number:05d}{_SUFFIX}" for number in range(parts)]
        folder.mkdir(parents=True, exist_ok=True)
        for path in self._paths:
            path.touch()

    def add(self, rows: Tensor) -> None:
        """Write the activations of some tokens, float32 [n, d_in].

        Raises:
            StorageError: the disk is full.
        """
        values = rows.cpu().numpy()
        parts = self._generator.integers(len(self._paths), size=len(values))
        try:
            for number in np.unique(parts):
                # Opened for each write: there may be more parts than files may be open.
                with self._paths[number].open("ab") as file:
                    file.write(np.ascontiguousarray(values[parts == number]))
        except OSError as error:
            raise StorageError(
                f"could not write {self._paths[0].parent}: {error.strerror or error}; "
                "free space, or train on fewer tokens"
            ) from error
        self.tokens += len(values)


def read_activations(folder: Path, d_in: int) -> Activations:
    """What an `ActivationWriter` wrote to `folder`; parts are mapped from disk, not loaded."""
    parts = [
        torch.from_file(
            str(path),
            shared=False,
            size=path.stat().st_size // BYTES_PER_NUMBER,
            dtype=torch.float32,
        ).view(-1, d_in)
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
        if path.stat().st_size
    ]
    return Activations(parts)
