"""The stage `collect`: a corpus in, feature statistics and contexts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import torch

from safesail.contexts._batch_size import (
    USUAL_TOKENS,
    WORTH_MEASURING,
    BatchSize,
    measure_batch_size,
)
from safesail.contexts._chunks import Chunks
from safesail.contexts._contexts import contexts, statistics
from safesail.contexts._pass import Pass, Target
from safesail.contexts._sketch import Sketch
from safesail.contexts._work import Checkpoints, Work, shard_name
from safesail.corpus import Corpus
from safesail.language_model import LanguageModel, TokenBatch
from safesail.study import CollectionSettings
from safesail.tables import CONTEXTS

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[Iterable, str], Iterable]
_LOGIT_TOKENS = 10
_NEAREST = 10


class Engine(Protocol):
    """Runs a pass over the chunks of a work's shard that it has not seen."""

    def __call__(
        self, passing: Pass, chunks: Chunks, work: Work, *, save: Callable[[Work], None]
    ) -> None:
        """Count every such chunk in the work once, and hand it to `save` now and then."""


@dataclass(frozen=True)
class Local:
    """The engine of this process.

    Attributes:
        save_every: seconds between two checkpoints.
        progress: wraps an iterable with a label.
    """

    save_every: float
    progress: Progress = lambda items, label: items

    def __call__(
        self, passing: Pass, chunks: Chunks, work: Work, *, save: Callable[[Work], None]
    ) -> None:
        """See the chunks one after another."""
        expected = chunks.max_tokens // (work.shard[1] * work.tokens_per_batch) + 1
        passing.run(
            chunks,
            work,
            save=save,
            save_every=self.save_every,
            progress=lambda batches: iter(self.progress(_Expected(batches, expected), "corpus")),
        )


@dataclass(frozen=True)
class _Expected:
    """Items that come one by one, and about how many there will be, for a progress bar."""

    items: Iterator[TokenBatch]
    count: int

    def __iter__(self) -> Iterator[TokenBatch]:
        return self.items

    def __len__(self) -> int:
        return self.count


def collect_contexts(
    passing: Pass,
    corpus: Corpus,
    settings: CollectionSettings,
    *,
    max_tokens: int,
    engine: Engine | None = None,
    shard: tuple[int, int] = (1, 1),
    plan: str = "",
    folder: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Work:
    """Observe features over a corpus and keep what explains and scores them.

    Memory depends on the features and on what is kept of each, not on the corpus.

    Args:
        passing: the model, the SAEs and their features.
        corpus: the documents.
        settings: how much is kept, batch and chunk size, seconds between checkpoints.
        max_tokens: about so many tokens are read.
        engine: where the work is done; in this process by default.
        shard: number and count, to see one chunk in so many; (1, 1) sees all.
        plan: digest of all that decides the result; a checkpoint of another plan is not used.
        folder: where checkpoints are kept, and found; None keeps none.
        tell: is given lines for people: device and batch size, what is resumed.

    Raises:
        SafesailError: see `safesail.errors`. What was seen before is kept in the checkpoints.
    """
    checkpoints = None
    work = None
    if folder is not None:
        checkpoints = Checkpoints(folder, shard_name(shard))
        work, faults = checkpoints.load(plan, passing.device)
        for fault in faults:
            tell(f"a checkpoint is not used: {fault}")
        if work is not None:
            tell(_resumed(work))
            asked = settings.tokens_per_batch
            if asked not in (None, work.tokens_per_batch):
                tell(f"batches are of {asked:,} tokens now, before of {work.tokens_per_batch:,}")
                work.resize(asked)
    chunks = Chunks(
        corpus, passing.tokenize, max_tokens=max_tokens, characters=settings.chunk_characters
    )
    if work is None:
        size = _batch_size(passing, chunks, settings, max_tokens)
        tell(passing.describe(size))
        work = Work(plan, passing.begin(), size.tokens, shard=shard)
    engine = engine or Local(settings.checkpoint_seconds)
    engine(passing, chunks, work, save=checkpoints.save if checkpoints else lambda work: None)
    return work


def _batch_size(
    passing: Pass, chunks: Chunks, settings: CollectionSettings, max_tokens: int
) -> BatchSize:
    if settings.tokens_per_batch is not None:
        return BatchSize(settings.tokens_per_batch)
    if max_tokens < WORTH_MEASURING:
        return BatchSize(USUAL_TOKENS)
    first = None
    for chunk in chunks.read(lambda number: True):
        first = first or chunk
        if max_tokens - chunk.tokens >= WORTH_MEASURING:
            return measure_batch_size(chunks.texts(first), passing.try_out)
    return BatchSize(USUAL_TOKENS)


def _resumed(work: Work) -> str:
    tokens = max((sketch.counts.tokens for sketch in work.sketches.values()), default=0)
    return f"going on from a checkpoint: {tokens:,} content tokens are done"


@dataclass
class Contexts:
    """What was collected of one SAE's features.

    Attributes:
        target: the SAE and its features.
        statistics: by feature, statistics columns of the features table.
    """

    target: Target
    statistics: dict[int, dict[str, Any]]
    _sketch: Sketch
    _settings: CollectionSettings

    @classmethod
    def of(
        cls, target: Target, sketch: Sketch, settings: CollectionSettings, model: LanguageModel
    ) -> Contexts:
        """Statistics of what was kept, with what the features write to and lie next to."""
        sae, features = target.sae, torch.tensor(target.features)
        nearest = sae.nearest_features(features, _NEAREST).tolist()
        directions = sae.decoder_directions[features]
        logits: list[tuple[list[str], list[str]]] = [([], [])] * len(features)
        if directions.shape[1] == model.d_model:
            logits = model.logit_directions(directions, _LOGIT_TOKENS)
        found = statistics(sketch)
        for column, feature in enumerate(target.features):
            found[feature]["top_logits"], found[feature]["bottom_logits"] = logits[column]
            found[feature]["nearest_features"] = nearest[column]
        return cls(target, found, sketch, settings)

    def tables(self) -> Iterator[pa.Table]:
        """Rows of the contexts table by feature, some features at a time."""
        sae = self.target.sae
        return contexts(self._sketch, sae.name, sae.layer, self._settings)

    def table(self) -> pa.Table:
        """All rows of the contexts table."""
        return pa.concat_tables([CONTEXTS.arrow().empty_table(), *self.tables()])

    def to_pandas(self) -> pd.DataFrame:
        """The contexts table."""
        return self.table().to_pandas()
