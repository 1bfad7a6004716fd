"""The stage `collect`: a corpus in, feature statistics and contexts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array

from safesail.contexts._choose import Choice, TypicalTokens, choose, window_peaks
from safesail.contexts._windows import SPLITS, Windows
from safesail.language_model import LanguageModel, TokenizedText
from safesail.sparse_autoencoder import SparseAutoencoder
from safesail.study import CollectionSettings
from safesail.tables import CONTEXTS

if TYPE_CHECKING:
    import pandas as pd

# With fewer windows in a split, neither an explanation nor a score means anything.
LEAST_ACTIVE_WINDOWS = 5
LOGIT_TOKENS = 10
NEAREST = 10
_BINS_PER_OCTAVE = 2


@dataclass
class Contexts:
    """Result of `collect_contexts`.

    Attributes:
        table: one row per context, as in the contexts table.
        statistics: by feature, the statistics columns of the features table.
    """

    table: pa.Table
    statistics: dict[int, dict[str, Any]]

    def to_pandas(self) -> pd.DataFrame:
        """The contexts table."""
        return self.table.to_pandas()


def collect_contexts(
    model: LanguageModel,
    sae: SparseAutoencoder,
    q999: dict[int, float],
    texts: Sequence[TokenizedText],
    sample: Sequence[TokenizedText],
    settings: CollectionSettings,
    *,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Contexts:
    """Observe chosen features over a corpus and keep what explains and scores them.

    Holds the features' non-zero activations of the whole corpus in memory: about 8 bytes for each
    firing, so tokens x features x density x 8.

    Args:
        model: the language model.
        sae: the SAE whose features are observed.
        q999: chosen features with the 0.999 quantile of their non-zero activations.
        texts: the tokenised corpus.
        sample: the corpus sample that attention sinks are told by, as in the ranking.
        settings: how many contexts of each kind to keep.
        progress: wraps an iterable with a label.
    """
    features = sorted(q999)
    firings, tokens_seen = _fire(model, sae, features, texts, sample, progress)
    windows = Windows.of(texts)
    token_ids = np.fromiter(chain.from_iterable(t.token_ids for t in texts), dtype=np.int64)
    typical = TypicalTokens(windows, token_ids)
    nearest = sae.nearest_features(torch.tensor(features), NEAREST).tolist()
    logits = _logits(model, sae, features)
    statistics: dict[int, dict[str, Any]] = {}
    chosen: list[tuple[int, Choice]] = []
    activations: list[NDArray[np.float32]] = []
    for column, feature in enumerate(progress(features, "choosing contexts")):
        span = slice(firings.indptr[column], firings.indptr[column + 1])
        tokens, values = firings.indices[span], firings.data[span]
        active, peaks = window_peaks(windows, tokens, values)
        status = _status(windows, active)
        statistics[feature] = {
            **_statistics(values, tokens_seen),
            "top_logits": logits[column][0],
            "bottom_logits": logits[column][1],
            "nearest_features": nearest[column],
            "status": status,
        }
        if status == "dead":
            continue
        dense = np.zeros(len(token_ids), dtype=np.float32)
        dense[tokens] = values
        near = typical.windows_near(tokens, values)
        priorities = windows.priorities(feature, settings.seed)
        for choice in choose(windows, active, peaks, near, q999[feature], priorities, settings):
            chosen.append((feature, choice))
            span = slice(windows.begin[choice.window], windows.end[choice.window])
            activations.append(dense[span])
    return Contexts(_table(sae, texts, windows, token_ids, chosen, activations), statistics)


def _fire(
    model: LanguageModel,
    sae: SparseAutoencoder,
    features: Sequence[int],
    texts: Sequence[TokenizedText],
    sample: Sequence[TokenizedText],
    progress: Callable[[Iterable, str], Iterable],
) -> tuple[csc_array, int]:
    """Non-zero activations, [tokens, features], and how many content tokens were seen."""
    calibration = model.batches(sample, prepend_bos=sae.prepend_bos)
    thresholds = model.sink_thresholds(calibration, [sae.hook_point])
    lengths = [len(text.token_ids) for text in texts]
    # Batches come in order of length; identity tells where each text's tokens are numbered.
    first_token = {id(t): s for t, s in zip(texts, np.cumsum([0, *lengths]), strict=False)}
    wanted = torch.tensor(list(features))
    rows, columns, values = [], [], []
    tokens_seen = 0
    batches = list(model.batches(texts, prepend_bos=sae.prepend_bos))
    for batch in progress(batches, "corpus"):
        hidden, content = model.observe(batch, [sae.hook_point], thresholds)[sae.hook_point]
        tokens_seen += int(content.sum())
        encoded = sae.encode_features(hidden[content], wanted)
        text, position = content.nonzero(as_tuple=True)
        numbers = torch.tensor([int(first_token[id(t)]) for t in batch.texts])
        token = numbers[text.cpu()] + position.cpu() - batch.first
        row, column = (encoded > 0).nonzero(as_tuple=True)
        rows.append(token[row.cpu()].numpy())
        columns.append(column.cpu().numpy())
        values.append(encoded[row, column].float().cpu().numpy())
    shape = (sum(lengths), len(features))
    matrix = csc_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    )
    matrix.sort_indices()
    return matrix, tokens_seen


def _status(windows: Windows, active: NDArray[np.integer]) -> str:
    if not len(active):
        return "dead"
    by_split = np.bincount(windows.split[active], minlength=len(SPLITS))
    return "collected" if by_split.min() >= LEAST_ACTIVE_WINDOWS else "too_few_contexts"


def _statistics(values: NDArray[np.float32], tokens_seen: int) -> dict[str, Any]:
    edges, counts = _histogram(values)
    return {
        "tokens_seen": tokens_seen,
        "fired": len(values),
        "density": len(values) / tokens_seen,
        "max_activation": float(values.max(initial=0)),
        "histogram_edges": edges,
        "histogram_counts": counts,
    }


def _histogram(values: NDArray[np.float32]) -> tuple[list[float], list[int]]:
    """Counts in half-octave bins, the same edges for every feature, empty ends left out."""
    if not len(values):
        return [], []
    places = np.floor(_BINS_PER_OCTAVE * np.log2(values)).astype(int)
    first, last = int(places.min()), int(places.max())
    counts = np.bincount(places - first, minlength=last - first + 1)
    edges = 2.0 ** (np.arange(first, last + 2) / _BINS_PER_OCTAVE)
    return edges.tolist(), counts.tolist()


def _logits(
    model: LanguageModel, sae: SparseAutoencoder, features: Sequence[int]
) -> list[tuple[list[str], list[str]]]:
    """Tokens each feature's direction raises and lowers most, where it writes to the stream."""
    directions = sae.decoder_directions[torch.tensor(list(features))]
    if directions.shape[1] != model.d_model:
        return [([], [])] * len(features)
    return model.logit_directions(directions, LOGIT_TOKENS)


def _table(
    sae: SparseAutoencoder,
    texts: Sequence[TokenizedText],
    windows: Windows,
    token_ids: NDArray[np.int64],
    chosen: Sequence[tuple[int, Choice]],
    activations: Sequence[NDArray[np.float32]],
) -> pa.Table:
    """Rows of the contexts table, built by column: lists share one flat array each."""
    window = np.array([choice.window for _, choice in chosen], dtype=np.int64)
    begin, lengths = windows.begin[window], (windows.end - windows.begin)[window]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(begin, lengths)
    strings = pa.array(chain.from_iterable(t.token_strings for t in texts), pa.string())
    values = np.concatenate([*activations, np.empty(0, dtype=np.float32)])
    first_of_text = np.full(len(texts), -1)
    # Windows come in text order: the first of each text begins where its tokens begin.
    first_of_text[windows.text[::-1]] = windows.begin[::-1]
    owners = windows.text[window]
    starts = begin - first_of_text[owners]
    columns = {
        "sae": [sae.name] * len(chosen),
        "layer": [sae.layer] * len(chosen),
        "feature": [feature for feature, _ in chosen],
        "document": [texts[owner].document for owner in owners],
        "start": [texts[o].start + int(s) for o, s in zip(owners, starts, strict=True)],
        "tokens": pa.ListArray.from_arrays(offsets, strings.take(pa.array(flat))),
        "token_ids": pa.ListArray.from_arrays(offsets, pa.array(token_ids[flat], pa.int32())),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32())),
        "peak_at": [int(a.argmax()) for a in activations],
        **{
            name: [getattr(choice, name) for _, choice in chosen]
            for name in ("split", "kind", "level", "sample", "peak", "weight")
        },
    }
    schema = CONTEXTS.arrow()
    return pa.table([pa.array(columns[n]) if isinstance(columns[n], list) else columns[n]
                     for n in schema.names], names=schema.names).cast(schema)  # fmt: skip
