"""From a sketch to tables: the contexts of every feature, and its statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safesail.contexts._active import ActiveRows
from safesail.contexts._bins import edges
from safesail.contexts._choose import (
    Choice,
    TokenIndex,
    choose_active,
    choose_silent,
    typical_tokens,
)
from safesail.contexts._sketch import Sketch
from safesail.contexts._windows import SPLITS, WINDOW_TOKENS
from safesail.study import CollectionSettings
from safesail.tables import CONTEXTS

# With fewer active windows in a split, neither an explanation nor a score means anything.
LEAST_ACTIVE_WINDOWS = 5
# Bins of the stored histogram that make one of the table's: four are an octave.
_BINS_SHOWN_TOGETHER = 8
# Features whose rows are made at a time: a few megabytes.
_FEATURES_AT_A_TIME = 32


def statistics(sketch: Sketch) -> dict[int, dict[str, Any]]:
    """By feature, what the features table says of its firing."""
    fired = sketch.counts.fired()
    q999, error = sketch.counts.q999()
    maximum = sketch.counts.maximum.cpu().numpy()
    histogram = sketch.counts.token_histogram.cpu().numpy()
    windows = sketch.counts.window_histogram.sum(2).cpu().numpy()
    found = {}
    for column, feature in enumerate(sketch.features):
        borders, counts = _shown(histogram[column])
        found[feature] = {
            "tokens_seen": sketch.counts.tokens,
            "fired": int(fired[column]),
            "density": float(fired[column] / max(sketch.counts.tokens, 1)),
            "max_activation": float(maximum[column]),
            "histogram_edges": borders,
            "histogram_counts": counts,
            "status": _status(windows[column]),
        }
        if fired[column]:
            found[feature] |= {"q999": float(q999[column]), "q999_error": float(error[column])}
    return found


def _status(active: NDArray[np.integer]) -> str:
    if not active.any():
        return "dead"
    return "collected" if active.min() >= LEAST_ACTIVE_WINDOWS else "too_few_contexts"


def _shown(histogram: NDArray[np.int64]) -> tuple[list[float], list[int]]:
    """Counts by quarter octave, the same borders for every feature, empty ends left out."""
    counts = histogram.reshape(-1, _BINS_SHOWN_TOGETHER).sum(1)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [], []
    first, last = int(filled[0]), int(filled[-1])
    borders = edges()[::_BINS_SHOWN_TOGETHER][first : last + 2]
    return borders.tolist(), counts[first : last + 1].tolist()


def contexts(
    sketch: Sketch, name: str, layer: int, settings: CollectionSettings
) -> Iterator[pa.Table]:
    """Rows of the contexts table, by feature, ascending; some features at a time.

    Args:
        sketch: what was kept of the corpus.
        name: of the SAE.
        layer: block that it reads.
        settings: how many windows of each kind are chosen.
    """
    chooser = _Chooser(sketch, settings)
    for begin in range(0, len(sketch.features), _FEATURES_AT_A_TIME):
        columns = range(begin, min(begin + _FEATURES_AT_A_TIME, len(sketch.features)))
        yield chooser.table(columns, name, layer)


class _Chooser:
    def __init__(self, sketch: Sketch, settings: CollectionSettings) -> None:
        self._sketch = sketch
        self._settings = settings
        self._active = sketch.active()
        groups = np.arange(len(sketch.features) * len(SPLITS) + 1)
        self._begin = np.searchsorted(self._active.group, groups)
        self._q999, _ = sketch.counts.q999()
        self._windows = sketch.counts.windows.cpu().numpy()
        self._histogram = sketch.counts.window_histogram.cpu().numpy()
        texts = sketch.texts()
        order = np.argsort(texts["window"].to_numpy())
        self._texts = texts.take(order).combine_chunks()
        self._keys = self._texts["window"].to_numpy()
        self._silent = sketch.silent()
        self._index = TokenIndex(self._token_ids(self._silent.window))

    def table(self, columns: range, name: str, layer: int) -> pa.Table:
        """Rows of the contexts table for the features in some places."""
        rows = self._active.take(self._rows(columns))
        active = self._choose_active(rows, columns)
        # What is scored on does not steer which silent windows are near.
        explaining = rows.take(np.unique(active.row[active.split == "explain"]))
        choice = Choice.joined([active, *self._choose_silent(explaining, columns)])
        activations = np.zeros((len(choice), WINDOW_TOKENS), dtype=np.float32)
        activations[choice.row >= 0] = rows.activations[choice.row[choice.row >= 0]].toarray()
        texts = self._texts.take(np.searchsorted(self._keys, choice.window))
        lengths = np.diff(texts["token_ids"].combine_chunks().offsets.to_numpy())
        within = np.arange(WINDOW_TOKENS) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        values = pa.array(activations[within], pa.float32())
        found = {
            "sae": pa.repeat(name, len(choice)),
            "layer": pa.repeat(layer, len(choice)),
            "feature": np.array(self._sketch.features)[choice.column],
            "split": choice.split,
            "kind": choice.kind,
            "level": choice.level,
            "sample": choice.sample,
            "document": texts["document"],
            "start": texts["start"],
            "tokens": texts["tokens"],
            "token_ids": texts["token_ids"],
            "activations": pa.ListArray.from_arrays(offsets, values),
            "peak": activations.max(1, initial=0),
            "peak_at": activations.argmax(1),
            "weight": choice.weight,
        }
        schema = CONTEXTS.arrow()
        return pa.table([found[n] for n in schema.names], names=schema.names).cast(schema)

    def _rows(self, columns: range) -> slice:
        """Where the active windows of some features stand."""
        borders = self._begin[[columns.start * len(SPLITS), columns.stop * len(SPLITS)]]
        return slice(*borders.tolist())

    def _choose_active(self, rows: ActiveRows, columns: range) -> Choice:
        span = slice(columns.start, columns.stop)
        return choose_active(
            rows,
            columns,
            self._histogram[span],
            self._q999[span],
            self._sketch.settings.per_bin,
            self._settings,
        )

    def _choose_silent(self, explaining: ActiveRows, columns: range) -> Iterator[Choice]:
        """Silent windows of some features.

        Args:
            explaining: active windows chosen to explain with, by feature.
            columns: places of the features among those observed.
        """
        borders = np.searchsorted(explaining.feature, [*columns, columns.stop])
        silent = self._silent.of_features(columns)
        for column, begin, end in zip(columns, borders, borders[1:], strict=False):
            if not self._histogram[column].any():
                continue
            mine = explaining.take(slice(begin, end))
            typical = typical_tokens(self._token_ids(mine.window), mine.activations.toarray())
            is_near = self._index.holding(typical)
            for split in range(len(SPLITS)):
                here = silent[column - columns.start] & (self._silent.split == split)
                yield from choose_silent(
                    self._silent.window[here],
                    split,
                    int(self._windows[split] - self._histogram[column, split].sum()),
                    is_near[here],
                    column,
                    self._sketch.features[column],
                    self._settings,
                )

    def _token_ids(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Token ids of windows by key, -1 beyond a window's end, [n, 32]."""
        lists = self._texts["token_ids"].take(np.searchsorted(self._keys, windows))
        array = lists.combine_chunks()
        within = np.arange(WINDOW_TOKENS) < np.diff(array.offsets.to_numpy())[:, None]
        found = np.full(within.shape, -1, dtype=np.int64)
        found[within] = array.flatten().to_numpy()
        return found
