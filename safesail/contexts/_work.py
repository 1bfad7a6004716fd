"""What has been seen of a corpus, as it is kept on disk: checkpoints, and finished shards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from safesail.contexts._sketch import Sketch, below
from safesail.errors import StorageError
from safesail.tables import written_whole

_VERSION = 2
# The checksum at the end of a file. Those in the archive leave its own structure unguarded.
_CHECKSUM_BYTES = 32
# What a killed run was writing stays behind; so old, no run that goes on is writing it.
_LEFT_BEHIND_SECONDS = 3600


@dataclass
class Work:
    """What has been seen, and how far.

    A chunk of the corpus is counted whole or up to a batch: what is not counted is seen again.

    Attributes:
        plan: digest of what decides the result; only work of one plan goes together.
        sketches: by name of the SAE.
        done: numbers of the chunks seen whole.
        chunk: the chunk under way; -1 where there is none.
        batches: its batches seen.
        begun: where it was begun in batches of another size, those sizes and how many of each
            were seen; `batches` counts those of what was left.
        tokens_per_batch: most tokens of a batch: what `batches` counts.
        chunks: how many chunks the corpus has; 0 while that is not known.
        shard: part of the corpus that this is: number and count, (1, 1) for all.
        saved: how often it was saved.
    """

    plan: str
    sketches: dict[str, Sketch]
    tokens_per_batch: int
    done: set[int] = field(default_factory=set)
    chunk: int = -1
    batches: int = 0
    begun: list[tuple[int, int]] = field(default_factory=list)
    chunks: int = 0
    shard: tuple[int, int] = (1, 1)
    saved: int = 0

    def resize(self, tokens_per_batch: int) -> None:
        """Go on in batches of another size."""
        if self.batches:
            self.begun.append((self.tokens_per_batch, self.batches))
        self.batches, self.tokens_per_batch = 0, tokens_per_batch

    def end_chunk(self) -> None:
        """Count the chunk under way as seen whole."""
        self.done.add(self.chunk)
        self.chunk, self.batches, self.begun = -1, 0, []

    def merge(self, other: Work) -> None:
        """Take in work on other chunks.

        Raises:
            ValueError: it is of another plan, under way, or counts a chunk that is counted here.
        """
        if other.plan != self.plan:
            raise ValueError("work of another plan cannot be merged")
        if other.chunk >= 0 or self.chunk >= 0:
            raise ValueError("work on a chunk that is under way cannot be merged")
        if self.done & other.done:
            raise ValueError(f"chunk {min(self.done & other.done)} would be counted twice")
        for name, sketch in other.sketches.items():
            self.sketches[name].merge(sketch)
        self.done |= other.done
        self.chunks = max(self.chunks, other.chunks)

    def write(self, path: Path) -> None:
        """Write it whole or not at all, with a checksum of all of it.

        Raises:
            StorageError: the disk is full or the folder not writable; an earlier file is intact.
        """
        arrays: dict[str, NDArray] = {
            "version": np.array([_VERSION]),
            "plan": np.array([self.plan]),
            "names": np.array(list(self.sketches)),
            "done": np.array(sorted(self.done), dtype=np.int64),
            "begun": np.array(self.begun, dtype=np.int64).reshape(-1, 2),
            "place": np.array(
                [
                    self.chunk, self.batches, self.tokens_per_batch, self.chunks, *self.shard,
                    self.saved,
                ]
            ),
        }  # fmt: skip
        with written_whole(path) as file:
            summed = _Summed(file.write)
            with zipfile.ZipFile(summed, "w") as archive:  # type: ignore[call-overload]
                for name, array in arrays.items():
                    _write_array(archive, name, array)
                for number, sketch in enumerate(self.sketches.values()):
                    for name, array in sketch.arrays().items():
                        _write_array(archive, f"{number}/{name}", array)
            file.write(summed.digest())

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Work:
        """Read what `write` wrote.

        Raises:
            StorageError: the file is missing, damaged (its checksum does not hold) or of another
                version.
        """
        try:
            with path.open("rb") as file:
                _require_whole(file)
                with np.load(file, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
            version = int(arrays["version"][0])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StorageError(f"{path} is damaged or missing ({_reason(error)})") from error
        if version != _VERSION:
            raise StorageError(f"{path} was written by another version of safesail")
        chunk, batches, tokens_per_batch, chunks, *shard, saved = arrays["place"].tolist()
        return cls(
            plan=str(arrays["plan"][0]),
            sketches={
                str(name): Sketch.from_arrays(below(arrays, f"{number}/"), device=device)
                for number, name in enumerate(arrays["names"])
            },
            tokens_per_batch=tokens_per_batch,
            done=set(arrays["done"].tolist()),
            chunk=chunk,
            batches=batches,
            begun=[(size, count) for size, count in arrays["begun"].tolist()],
            chunks=chunks,
            shard=(shard[0], shard[1]),
            saved=saved,
        )


def shard_name(shard: tuple[int, int]) -> str:
    """What the files of a shard begin with."""
    return f"shard-{shard[0]}-of-{shard[1]}"


class Checkpoints:
    """Two files that take turns, so that one is always whole."""

    def __init__(self, folder: Path, name: str) -> None:
        """Nothing is read or written yet."""
        self._paths = [folder / f"{name}.checkpoint-{number}" for number in (0, 1)]

    def save(self, work: Work) -> None:
        """Write over the older of the two.

        Raises:
            StorageError: the disk is full or the folder not writable; the newer is intact.
        """
        work.saved += 1
        work.write(self._paths[work.saved % 2])

    def load(self, plan: str, device: str) -> tuple[Work | None, list[str]]:
        """The newest checkpoint of a plan that is whole, and what was wrong with others.

        Returns:
            The work, None where there is none; and one line for each damaged file.
        """
        found, faults = [], []
        for path in self._paths:
            _delete_left_behind(path)
            if path.exists():
                try:
                    found.append(Work.read(path, device))
                except StorageError as error:
                    faults.append(str(error))
        mine = [work for work in found if work.plan == plan]
        return max(mine, key=lambda work: work.saved, default=None), faults

    def clear(self) -> None:
        """Delete both."""
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


class _Summed:
    """Passes on what is written, and sums it up."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self._hash = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._write(content)

    def flush(self) -> None:
        """Nothing: there is no buffer."""

    def digest(self) -> bytes:
        return self._hash.digest()


def _require_whole(file: IO[bytes]) -> None:
    """Check a file against the checksum at its end, and go back to its beginning."""
    left = os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES
    summed = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    while left > 0 and (content := file.read(min(left, 1 << 20))):
        summed.update(content)
        left -= len(content)
    if left or file.read() != summed.digest():
        raise ValueError("its checksum does not hold")
    file.seek(0)


def _delete_left_behind(path: Path) -> None:
    for left in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                left.unlink()


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
