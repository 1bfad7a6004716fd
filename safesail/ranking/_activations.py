"""One model pass over corpus sample and pairs for all candidates: shared as it runs, or spooled."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from safesail.errors import StorageError
from safesail.language_model import LanguageModel, Observation, TokenizedText
from safesail.ranking._sample import Spread

Part = Literal["sample", "pairs"]
Progress = Callable[[Iterable, str], Iterable]


class Site(NamedTuple):
    """What a candidate reads and what it rebuilds; the same hook point but for transcoders."""

    read: str
    rebuilt: str


@dataclass(frozen=True)
class SiteTokens:
    """Content tokens of one batch at one site.

    Attributes:
        part: `sample`, or `pairs` for the texts of the contrast pairs.
        inputs: float32 [n, d_in], what the candidate reads; n may be 0.
        targets: float32 [n, d_out], what it is to rebuild; `inputs` itself where that is the same.
        texts: number of each text, [t]; zeros for the sample.
        lengths: content tokens of each text, in order, [t]; their sum is n.
        sink_threshold: hidden norm above which a token was left out as an attention sink.
    """

    part: Part
    inputs: Tensor
    targets: Tensor
    texts: list[int]
    lengths: list[int]
    sink_threshold: float

    @cached_property
    def spread(self) -> Spread:
        """How the targets vary: the same for all candidates at the site."""
        return Spread.of(self.targets)


def read_sites(
    model: LanguageModel,
    sample: Sequence[TokenizedText],
    pairs: Sequence[TokenizedText],
    sites: Sequence[Site],
    *,
    prepend_bos: bool,
    progress: Progress,
) -> Iterator[dict[Site, SiteTokens]]:
    """Content tokens of every batch at every site, the sample first; one forward pass each.

    Args:
        model: the language model.
        sample: the corpus sample; attention sinks are told by its first tokens.
        pairs: the pairs' texts; `document` is the text's number.
        sites: of the candidates, in any order.
        prepend_bos: whether texts begin with BOS.
        progress: wraps an iterable with a label.
    """
    points = sorted({point for site in sites for point in site})
    batches = list(model.batches(sample, prepend_bos=prepend_bos))
    waiting = iter(progress(batches, "corpus sample"))
    thresholds, taken = model.observe_and_calibrate(waiting, points)
    taken.reverse()
    while taken:  # popped, so that each is freed once it has been used
        batch, found = taken.pop()
        yield _at_sites("sample", found, sites, [0] * len(batch.texts), thresholds)
    for batch in waiting:
        found = model.observe(batch, points, thresholds)
        yield _at_sites("sample", found, sites, [0] * len(batch.texts), thresholds)
    batches = list(model.batches(pairs, prepend_bos=prepend_bos))
    for batch in progress(batches, "contrast pairs"):
        found = model.observe(batch, points, thresholds)
        numbers = [int(text.document) for text in batch.texts]
        yield _at_sites("pairs", found, sites, numbers, thresholds)


def _at_sites(
    part: Part,
    found: dict[str, Observation],
    sites: Sequence[Site],
    texts: list[int],
    thresholds: dict[str, float],
) -> dict[Site, SiteTokens]:
    at_sites = {}
    for site in sites:
        activations, content = found[site.read]
        inputs = activations[content]
        targets = inputs if site.read == site.rebuilt else found[site.rebuilt].activations[content]
        lengths = content.sum(1).tolist()
        at_sites[site] = SiteTokens(part, inputs, targets, texts, lengths, thresholds[site.read])
    return at_sites


class Spool:
    """Content tokens at every site, on disk, to be read once per candidate.

    A context manager: its folder below the system's folder for temporary files is removed at its
    end. One file of float32 numbers per site and side, read in the order in which it was written.
    """

    def __init__(self, model: LanguageModel, sites: Sequence[Site], tokens: int) -> None:
        """Make the folder.

        Args:
            model: the language model.
            sites: of the candidates, each once.
            tokens: at most so many will be added.

        Raises:
            StorageError: the activations would not fit on the disk.
        """
        self._device = model.device
        self._sizes = {s: {point: model.activation_size(point) for point in s} for s in sites}
        needed = 4 * tokens * sum(sum(sizes.values()) for sizes in self._sizes.values())
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if needed > free:
            raise StorageError(
                "the candidates do not fit in memory together, so the model's activations are put "
                f"in {tempfile.gettempdir()}: {needed / 1e9:,.1f} GB, but {free / 1e9:,.1f} GB are "
                "free: set TMPDIR to a larger disk, or rank one layer at a time with --layer"
            )
        self._temporary = tempfile.TemporaryDirectory(prefix="safesail-")
        self._batches: dict[Site, list[tuple[Part, list[int], list[int], float]]] = {
            site: [] for site in sites
        }

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._temporary.cleanup()

    def add(self, at_sites: dict[Site, SiteTokens]) -> None:
        """Write one batch.

        Raises:
            StorageError: the disk does not take it.
        """
        for site, tokens in at_sites.items():
            self._batches[site].append(
                (tokens.part, tokens.texts, tokens.lengths, tokens.sink_threshold)
            )
            written = {site.read: tokens.inputs, site.rebuilt: tokens.targets}
            for point, activations in written.items():
                try:
                    with self._file(site, point).open("ab") as file:
                        activations.cpu().numpy().tofile(file)
                except OSError as error:
                    raise StorageError(
                        f"cannot write activations to {self._temporary.name} ({error.strerror}): "
                        "set TMPDIR to a larger disk, or rank one layer at a time with --layer"
                    ) from error

    def read(self, site: Site) -> Iterator[SiteTokens]:
        """The batches at one site, as they were added."""
        with ExitStack() as stack:
            files = {
                point: stack.enter_context(self._file(site, point).open("rb")) for point in site
            }
            for part, texts, lengths, threshold in self._batches[site]:
                read = {
                    point: self._read(files[point], sum(lengths), size)
                    for point, size in self._sizes[site].items()
                }
                yield SiteTokens(
                    part, read[site.read], read[site.rebuilt], texts, lengths, threshold
                )

    def _read(self, file: IO[bytes], tokens: int, size: int) -> Tensor:
        values = np.fromfile(file, dtype=np.float32, count=tokens * size)
        return torch.from_numpy(values.reshape(tokens, size)).to(self._device)

    def _file(self, site: Site, point: str) -> Path:
        number = list(self._batches).index(site)
        return Path(self._temporary.name) / f"{number}-{site.index(point)}"
