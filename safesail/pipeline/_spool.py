"""One pass of the model over the corpus, spooled to disk for all SAEs of a sweep."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.corpus import Corpus
from safesail.errors import InputError, StorageError
from safesail.pipeline._workspace import Progress
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from safesail.language_model import LanguageModel, Observation, TokenBatch
    from safesail.reading import Reading
    from safesail.sparse_autoencoder import Activations

# One document in so many is set aside, by its hash; tokens beyond these are used for nothing.
_HELDOUT_SHARE = 20
HELDOUT_TOKENS = 50_000
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Spool:
    """Activations of the corpus' content tokens, on disk.

    Attributes:
        folder: one folder per hook point below it.
        sizes: numbers per token, by hook point.
        tokens: to train on, by hook point.
        heldout_tokens: set aside, by hook point.
    """

    folder: Path
    sizes: Mapping[str, int]
    tokens: Mapping[str, int]
    heldout_tokens: Mapping[str, int]

    def read(self, hook_point: str) -> tuple[Activations, Tensor]:
        """What to train on, and what to judge on: float32 [tokens, d]."""
        from safesail.sparse_autoencoder import read_activations

        size = self.sizes[hook_point]
        training = read_activations(self.folder / hook_point / "training", size)
        heldout = read_activations(self.folder / hook_point / "heldout", size)
        return training, heldout.parts[0]


def reading_of(model: LanguageModel) -> Reading:
    """How the corpus is read for training: with BOS where the model has one, at usual length."""
    from safesail.reading import Reading

    return Reading.of(model, prepend_bos=model.bos_token_id is not None, context_size=None)


def spool_bytes(sizes: Iterable[int], tokens: int) -> int:
    """Most bytes that a spool takes: hook points of these sizes, so many tokens."""
    return 4 * tokens * sum(sizes)


def size_text(count: int) -> str:
    """Bytes for people: `12.3 GB`, `45 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuse before hours are spent.

    Raises:
        StorageError: the disk has less room than needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{what} take up to {size_text(needed)} of disk, {folder} has {size_text(free)} free: "
            "use fewer tokens, layers or sites"
        )


def spool(
    folder: Path,
    model: LanguageModel,
    corpus: Corpus,
    sizes: Mapping[str, int],
    *,
    tokens: int,
    seed: int,
    settings: Mapping[str, Any],
    progress: Progress,
) -> Spool:
    """Write the activations of the corpus' content tokens, unless they are there.

    Args:
        folder: the spool's own; what other settings left there goes.
        model: the language model.
        corpus: read until `tokens` tokens are seen.
        sizes: numbers per token at each hook point.
        tokens: how many, BOS not counted.
        seed: of the parts.
        settings: what the activations depend on.
        progress: wraps an iterable with a label.

    Raises:
        InputError: the corpus is empty or too small to set documents aside.
        StorageError: the disk is full.
    """
    known = _written(folder, sizes, settings)
    if known is not None:
        return known
    shutil.rmtree(folder, ignore_errors=True)
    tokens_seen, heldout_seen = _write(folder, model, corpus, sizes, tokens, seed, progress)
    for hook_point in sizes:
        if not tokens_seen[hook_point] or not heldout_seen[hook_point]:
            raise InputError(
                f"the corpus is too small: {tokens_seen[hook_point]} tokens to train on at "
                f"{hook_point}, {heldout_seen[hook_point]} set aside (one document in "
                f"{_HELDOUT_SHARE}): give more documents"
            )
    manifest = {"settings": settings, "tokens": tokens_seen, "heldout": heldout_seen}
    write_bytes(folder / _MANIFEST, json.dumps(manifest).encode())
    return Spool(folder, sizes, tokens_seen, heldout_seen)


def _written(folder: Path, sizes: Mapping[str, int], settings: Mapping[str, Any]) -> Spool | None:
    """The spool of an earlier run, where it is whole and of the same settings."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if manifest["settings"] != settings or not sizes.keys() <= manifest["tokens"].keys():
        return None
    return Spool(folder, sizes, manifest["tokens"], manifest["heldout"])


def _write(
    folder: Path,
    model: LanguageModel,
    corpus: Corpus,
    sizes: Mapping[str, int],
    tokens: int,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, int], dict[str, int]]:
    from safesail.sparse_autoencoder import ActivationWriter

    training = {
        point: ActivationWriter(folder / point / "training", size, tokens=tokens, seed=seed)
        for point, size in sizes.items()
    }
    # One part each: it is small, and read whole.
    heldout = {
        point: ActivationWriter(folder / point / "heldout", size, tokens=0, seed=seed)
        for point, size in sizes.items()
    }
    reading = reading_of(model)
    texts = reading.texts(model, corpus, tokens)
    batches = model.batches(texts, prepend_bos=reading.prepend_bos)
    for batch, observed in progress(_observed(model, batches, list(sizes)), "activations"):
        aside = batch.content_mask.new_tensor([[_is_heldout(t.document)] for t in batch.texts])
        for point, (activations, content) in observed.items():
            training[point].add(activations[content & ~aside])
            if heldout[point].tokens < HELDOUT_TOKENS:
                heldout[point].add(activations[content & aside])
    return (
        {point: writer.tokens for point, writer in training.items()},
        {point: writer.tokens for point, writer in heldout.items()},
    )


def _observed(
    model: LanguageModel, batches: Iterator[TokenBatch], hook_points: list[str]
) -> Iterator[tuple[TokenBatch, dict[str, Observation]]]:
    thresholds, first = model.observe_and_calibrate(batches, hook_points)
    rest = ((batch, model.observe(batch, hook_points, thresholds)) for batch in batches)
    return chain(first, rest)


def _is_heldout(document: str) -> bool:
    digest = hashlib.blake2b(document.encode(), digest_size=8, person=b"train-saes").digest()
    return int.from_bytes(digest, "big") % _HELDOUT_SHARE == 0
