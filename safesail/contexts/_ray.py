"""The engine that shares the chunks of a corpus out among processes, by Ray.

Exactly once: what a worker saw of a piece of work and the numbers of its chunks stay together on
the whole way into the work. What is lost on that way, numbers and all, is seen again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from safesail.contexts._chunks import Chunk, Chunks
from safesail.contexts._cluster import cluster, first_line, import_ray, last_line, share
from safesail.contexts._pass import Pass
from safesail.contexts._sketch import Sketch
from safesail.contexts._work import Work
from safesail.contexts._worker import Arrays, Worker, merged
from safesail.errors import ConfigurationError, ModelError, SafesailError

# A worker has one piece under way and one that waits.
_PIECES_EACH = 2
# A piece is as many chunks as take about so long: each piece costs a merge of all that is kept.
_PIECE_SECONDS = 10.0
_MOST_CHUNKS = 64
# Ray holds the texts of pieces until their results have been taken in.
_MOST_PIECES = 64
_RETRIES = 3
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class RayEngine:
    """Workers in processes of their own, one a GPU, on this machine or on a Ray cluster.

    Each worker makes the pass again by its `elsewhere`, and so loads model and SAEs itself; on a
    cluster, the study's folder must be there under the same path. A worker that dies is replaced.

    Attributes:
        workers: how many; by default one a GPU, or one for every four CPU cores.
        address: a Ray cluster's, as `ray.init` takes it; None starts one here for the while,
            unless this process is connected to one.
        save_every: seconds between two checkpoints.
        use_gpus: whether workers get the GPUs that the cluster has.
        progress: wraps an iterable with a label.
        tell: is given lines for people.
    """

    workers: int | None = None
    address: str | None = None
    save_every: float = 60.0
    use_gpus: bool = True
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items
    tell: Callable[[str], None] = lambda line: None

    def __call__(
        self, passing: Pass, chunks: Chunks, work: Work, *, save: Callable[[Work], None]
    ) -> None:
        """Count every chunk of the work's shard that it has not seen, and save it in the end.

        Raises:
            ConfigurationError: Ray is not installed, or cannot be reached.
            ModelError: workers die again and again, or results are lost so.
            SafesailError: of the corpus, of `save`, or of a worker as it would be here.
            ValueError: the pass has no `elsewhere`.
        """
        if passing.elsewhere is None:
            raise ValueError("a pass without `elsewhere` cannot be made by another process")
        ray = import_ray(self.address)
        _finish_begun(passing, chunks, work)
        with cluster(ray, self.address):
            run = _Run(ray, self, passing, work)
            try:
                for _ in range(_RETRIES + 1):
                    if self._see_all(run, chunks, work, save):
                        break
                else:
                    raise ModelError("Ray lost results again and again: look after its machines")
            finally:
                run.end()
        work.chunks = chunks.count
        save(work)

    def _see_all(self, run: _Run, chunks: Chunks, work: Work, save: Callable[[Work], None]) -> bool:
        """See what is not done; False where some of that was lost again."""
        number, count = work.shard
        wanted = chunks.read(lambda n: n % count == number - 1 and n not in work.done)
        saved, whole = time.monotonic(), True
        for _ in self.progress(run.see(wanted), "corpus"):
            due = time.monotonic() - saved >= self.save_every
            if due or run.pieces >= _MOST_PIECES:
                whole &= run.take()
            if due:
                save(work)
                saved = time.monotonic()
        return whole & run.take()


class _Run:
    """Workers, the pieces that they see, and what they saw on its way into the work."""

    def __init__(self, ray: Any, engine: RayEngine, passing: Pass, work: Work) -> None:
        self._ray, self._engine, self._passing, self._work = ray, engine, passing, work
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        gpus = [int(node.get("GPU", 0)) if engine.use_gpus else 0 for node in nodes]
        count = engine.workers or sum(gpus) or max(1, sum(cpus) // 4)
        threads = max(1, int(share(cpus, count)))
        asked = {"num_cpus": share(cpus, count), "num_gpus": 0.0}
        if any(gpus):
            asked = {"num_cpus": 0.0, "num_gpus": min(1.0, share(gpus, count))}
        engine.tell(
            f"Ray: {count} workers of {threads} threads on {len(nodes)} machines"
            + (f", {asked['num_gpus']:g} GPU each" if any(gpus) else "")
        )
        actor = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **asked)(Worker)
        self._workers = [actor.remote(passing.elsewhere, threads) for _ in range(count)]
        self._free = deque(self._workers * _PIECES_EACH)
        self._merge = ray.remote(num_cpus=0, max_retries=_RETRIES)(merged)
        self._merging: list[Any] = []
        # By the reference to its seconds: worker, reference to what it saw, chunks.
        self._under_way: dict[Any, tuple[Any, Any, list[int]]] = {}
        # References to merged pieces and their chunks, larger ones first: a binary counter.
        self._seen: list[tuple[int, Any, list[int]]] = []
        self._size, self._heard = 1, False

    @property
    def pieces(self) -> int:
        """How many pieces were seen and not taken yet."""
        return sum(pieces for pieces, _, _ in self._seen)

    def see(self, chunks: Iterator[Chunk]) -> Iterator[list[int]]:
        """Have chunks seen; yields numbers of some whenever they are done."""
        piece: list[Chunk] = []
        for chunk in chunks:
            piece.append(chunk)
            if len(piece) >= self._size:
                yield from self._send(piece)
                piece = []
        if piece:
            yield from self._send(piece)
        while self._under_way:
            yield self._receive()

    def take(self) -> bool:
        """Take into the work what has been seen; False where some of it was lost."""
        while len(self._seen) > 1:
            self._merge_last()
        seen, self._seen, self._merging = self._seen, [], []
        for _, reference, numbers in seen:
            try:
                found: Arrays = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                # Of a merge whose parts are lost, the cause is that loss.
                cause = getattr(error, "cause", error)
                if isinstance(cause, self._ray.exceptions.RayError):
                    return False
                raise
            for name, arrays in found.items():
                sketch = Sketch.from_arrays(arrays, device=self._passing.device)
                self._work.sketches[name].merge(sketch)
            self._work.done.update(numbers)
        return True

    def end(self) -> None:
        """End the workers, whatever they do."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _send(self, piece: list[Chunk]) -> Iterator[list[int]]:
        if not self._free:
            yield self._receive()
        worker = self._free.popleft()
        see = worker.see.options(num_returns=2)
        seconds, seen = see.remote(piece, self._work.tokens_per_batch)
        self._under_way[seconds] = (worker, seen, [chunk.number for chunk in piece])

    def _receive(self) -> list[int]:
        """Wait for one piece."""
        waiting = list(self._under_way)
        done, _ = self._ray.wait(waiting, timeout=None if self._heard else _PATIENCE_SECONDS)
        if not done:
            self._engine.tell("waiting for Ray's workers: they are placed, and load the model")
            done, _ = self._ray.wait(waiting)
        self._heard = True
        worker, seen, numbers = self._under_way.pop(done[0])
        exceptions = self._ray.exceptions
        try:
            seconds = self._ray.get(done[0])
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, SafesailError):
                raise error.cause from None
            raise
        except exceptions.RayError as error:
            if "creation task" in str(error):
                raise ConfigurationError(
                    f"Ray's workers cannot start ({last_line(error)}): each needs this environment "
                    "of Python, and the study's folder under the same path"
                ) from error
            raise ModelError(
                f"Ray's workers die at chunk {numbers[0]} ({first_line(error)}): give them more "
                "memory, or lower `collection.tokens_per_batch` in safesail.toml"
            ) from error
        self._free.append(worker)
        wanted = len(numbers) * min(_PIECE_SECONDS, self._engine.save_every) / max(seconds, 1e-3)
        self._size = max(1, min(int(wanted), 2 * len(numbers), _MOST_CHUNKS))
        self._seen.append((1, seen, numbers))
        while len(self._seen) > 1 and self._seen[-1][0] == self._seen[-2][0]:
            self._merge_last()
        return numbers

    def _merge_last(self) -> None:
        # Each merge under way is a process more, which first of all loads torch.
        if len(self._merging) >= max(1, len(self._workers) // 4):
            _, self._merging = self._ray.wait(self._merging, fetch_local=False)
        (first, one, numbers), (second, other, more) = self._seen[-2:]
        joined = self._merge.remote(one, other)
        self._merging.append(joined)
        self._seen[-2:] = [(first + second, joined, numbers + more)]


def _finish_begun(passing: Pass, chunks: Chunks, work: Work) -> None:
    """See here the rest of a chunk that another engine had under way."""
    if work.chunk < 0:
        return
    for chunk in chunks.read(lambda number: number == work.chunk):
        texts = passing.left(chunks.texts(chunk), work.begun)
        passing.see_chunk(
            chunk.number, texts, work.sketches, work.tokens_per_batch, first=work.batches
        )
        break
    work.end_chunk()
