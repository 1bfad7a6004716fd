"""The model pass: every text once, for all SAEs and layers together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import isnan

import torch
from torch import Tensor

from safesail.contexts._batch_size import BatchSize
from safesail.contexts._chunks import Chunks, ahead
from safesail.contexts._memory import give_back_memory
from safesail.contexts._sketch import Sketch, SketchSettings
from safesail.contexts._windows import ContentTokens, Windows
from safesail.contexts._work import Work
from safesail.corpus import Document
from safesail.errors import CandidateError, ModelError
from safesail.language_model import LanguageModel, TokenBatch, TokenizedText
from safesail.reading import Reading
from safesail.sparse_autoencoder import SparseAutoencoder

# Bytes that the activations of a target's features may take at a time, whatever the batch.
_ACTIVATIONS = 1 << 28
# Batches between two times that freed memory goes back; once takes some milliseconds.
_GIVE_BACK_EVERY = 8


@dataclass(frozen=True)
class Target:
    """An SAE, and what is observed of it.

    Attributes:
        sae: the SAE.
        features: indices in it, ascending; at least one.
        sink_threshold: hidden norm above which a token is an attention sink, as in the ranking.

    Raises:
        ValueError: there are no features, they do not ascend, or the SAE has no such ones.
    """

    sae: SparseAutoencoder
    features: tuple[int, ...]
    sink_threshold: float

    def __post_init__(self) -> None:
        name, width = self.sae.name, self.sae.width
        if not self.features:
            raise ValueError(f"no features of SAE {name} to observe: give at least one")
        if any(after <= before for before, after in pairwise(self.features)):
            raise ValueError(f"features of SAE {name} must ascend, each once")
        for feature in (self.features[0], self.features[-1]):
            if not 0 <= feature < width:
                raise ValueError(
                    f"SAE {name} has no feature {feature}: its features are 0 to {width - 1}"
                )


class Pass:
    """One pass of a model over a corpus, for targets that read it alike.

    Attributes:
        model: the language model.
        targets: the SAEs and their features.
        reading: how documents become texts.
        device: where the model runs.
        elsewhere: makes the same pass in another process; None where nobody said how.
    """

    def __init__(
        self,
        model: LanguageModel,
        targets: Sequence[Target],
        settings: SketchSettings,
        *,
        elsewhere: Callable[[], Pass] | None = None,
    ) -> None:
        """Prepare the targets.

        Args:
            model: the language model.
            targets: of SAEs with the same BOS rule and context size.
            settings: how much is kept of each feature.
            elsewhere: makes the same pass in another process, where it is sent by pickle.

        Raises:
            ValueError: the targets read differently.
        """
        readings = {reading_of(target.sae, model) for target in targets}
        if len(readings) != 1:
            raise ValueError("targets of different BOS rules or context sizes share no pass")
        (self.reading,) = readings
        self.model = model
        self.targets = targets
        self._settings = settings
        self._columns = [torch.tensor(target.features) for target in targets]
        self._thresholds = {t.sae.hook_point: t.sink_threshold for t in targets}
        self.device = model.device
        self.elsewhere = elsewhere
        self._batches = 0

    def describe(self, size: BatchSize) -> str:
        """Where and how the pass runs, in one line."""
        measured = ""
        if not isnan(size.tokens_per_second):
            measured = f" (measured: {size.tokens_per_second:,.0f} tokens/s)"
        name = torch.cuda.get_device_name(self.device) if "cuda" in self.device else self.device
        return f"{name}, {self.model.dtype}, {size.tokens:,} tokens a batch{measured}"

    def try_out(self, texts: Sequence[TokenizedText], tokens_per_batch: int) -> None:
        """Observe texts and forget them, to see how long it takes."""
        sketches = self.begin()
        for batch in self.batches(texts, tokens_per_batch):
            self.see(batch, sketches, "a batch tried out")

    def begin(self) -> dict[str, Sketch]:
        """Empty sketches, by name of the SAE."""
        return {
            target.sae.name: Sketch(target.features, self._settings, device=self.model.device)
            for target in self.targets
        }

    def run(
        self,
        chunks: Chunks,
        work: Work,
        *,
        save: Callable[[Work], None],
        save_every: float,
        progress: Callable[[Iterator[TokenBatch]], Iterator[TokenBatch]],
    ) -> None:
        """See every chunk of the work's shard that it has not seen, and count it there.

        Args:
            chunks: the corpus.
            work: goes on from where it is.
            save: is given the work, which it may write down, between batches.
            save_every: seconds between two calls of it.
            progress: wraps the batches as they come.

        Raises:
            SafesailError: of the corpus, of `save`; or activations are not finite.
        """
        number, count = work.shard

        def is_mine(chunk: int) -> bool:
            return chunk % count == number - 1 and chunk not in work.done

        saved = time.monotonic()

        def batches() -> Iterator[TokenBatch]:
            texts = ((chunk.number, chunks.texts(chunk)) for chunk in chunks.read(is_mine))
            for chunk, found in ahead(texts):
                if work.chunk != chunk:
                    work.chunk, work.batches, work.begun = chunk, 0, []
                left = self.left(found, work.begun)
                yield from islice(self.batches(left, work.tokens_per_batch), work.batches, None)
                work.end_chunk()

        for batch in progress(batches()):
            self.see(batch, work.sketches, f"batch {work.batches + 1} of chunk {work.chunk}")
            work.batches += 1
            if time.monotonic() - saved >= save_every:
                save(work)
                saved = time.monotonic()
        work.chunks = chunks.count

    def left(
        self, texts: Sequence[TokenizedText], begun: Sequence[tuple[int, int]]
    ) -> Sequence[TokenizedText]:
        """What is left of a chunk's texts after some batches of each of some sizes."""
        for size, count in begun:
            batches = islice(self.batches(texts, size), count)
            seen = {id(text) for batch in batches for text in batch.texts}
            texts = [text for text in texts if id(text) not in seen]
        return texts

    def see_chunk(
        self,
        number: int,
        texts: Sequence[TokenizedText],
        sketches: Mapping[str, Sketch],
        tokens_per_batch: int,
        *,
        first: int = 0,
    ) -> None:
        """Take in a chunk, or what is left of it.

        Args:
            number: of the chunk, for messages.
            texts: of the chunk.
            sketches: of `begin`.
            tokens_per_batch: most tokens of a batch.
            first: how many of its batches were seen before.

        Raises:
            SafesailError: activations are not finite.
        """
        for place, batch in enumerate(self.batches(texts, tokens_per_batch)):
            if place >= first:
                self.see(batch, sketches, f"batch {place + 1} of chunk {number}")

    def tokenize(self, documents: Sequence[Document], tokens: int) -> list[TokenizedText]:
        """Documents as texts, up to a number of tokens."""
        return list(self.reading.texts(self.model, documents, tokens))

    def batches(
        self, texts: Sequence[TokenizedText], tokens_per_batch: int
    ) -> Iterator[TokenBatch]:
        """Texts of one chunk in batches: the same ones whoever sees the chunk."""
        return self.model.batches(
            texts, prepend_bos=self.reading.prepend_bos, tokens_per_batch=tokens_per_batch
        )

    def see(self, batch: TokenBatch, sketches: Mapping[str, Sketch], where: str) -> None:
        """Take in one batch.

        Args:
            batch: of `batches`.
            sketches: of `begin`.
            where: the batch's place, for messages.

        Raises:
            ModelError: the model's activations are not finite.
            CandidateError: those of an SAE are not.
        """
        try:
            found = self.model.observe(batch, list(self._thresholds), self._thresholds)
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        for target, columns in zip(self.targets, self._columns, strict=True):
            activations, content = found[target.sae.hook_point]
            for rows in _parts(content, target):
                self._take_in(
                    batch.part(rows),
                    target,
                    columns,
                    activations[rows],
                    content[rows],
                    sketches[target.sae.name],
                    where,
                )
        self._batches += 1
        if self._batches % _GIVE_BACK_EVERY == 0:
            give_back_memory()

    def _take_in(
        self,
        batch: TokenBatch,
        target: Target,
        columns: Tensor,
        activations: Tensor,
        content: Tensor,
        sketch: Sketch,
        where: str,
    ) -> None:
        inputs = activations[content]
        encoded = target.sae.encode_features(inputs, columns)
        # A sum reads once and writes nothing; only where it is not finite is each looked at.
        if not encoded.sum().isfinite() and not encoded.isfinite().all():
            raise _not_finite(batch, target, inputs, where)
        windows = Windows.of(batch.texts)
        sketch.add(batch.texts, windows, ContentTokens.of(batch, windows, content), encoded)


def _parts(content: Tensor, target: Target) -> Iterator[slice]:
    """Rows of a batch whose activations fit in memory together; at least one."""
    room = _ACTIVATIONS // (4 * target.sae.columns_computed(len(target.features)))
    begin = seen = 0
    for row, tokens in enumerate(content.sum(1).tolist()):
        if row > begin and seen + tokens > room:
            yield slice(begin, row)
            begin, seen = row, 0
        seen += tokens
    yield slice(begin, len(content))


def reading_of(sae: SparseAutoencoder, model: LanguageModel) -> Reading:
    """How an SAE reads documents; SAEs that read alike can share a pass."""
    return Reading.of(model, prepend_bos=sae.prepend_bos, context_size=sae.context_size)


def _not_finite(
    batch: TokenBatch, target: Target, inputs: Tensor, where: str
) -> ModelError | CandidateError:
    documents = f"{batch.texts[0].document} ... {batch.texts[-1].document}"
    sae = target.sae
    if not inputs.isfinite().all():
        return ModelError(
            f"the model's activations at {sae.hook_point} (layer {sae.layer}) are not finite in "
            f"{where} (documents {documents}): nothing was kept of it; set `model.dtype` to "
            '"float32" in safesail.toml'
        )
    return CandidateError(
        f"SAE {sae.name} (layer {sae.layer}) gives activations that are not finite in {where} "
        f"(documents {documents}): its weights are damaged, or it belongs to another model"
    )
