"""What pages and reports show of a study, read from its files."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safesail.explorer._catalog import Catalog, signature
from safesail.explorer._contexts import FEW, ContextGroup, Shown, context_groups
from safesail.explorer._corrections import Correction, write_correction
from safesail.explorer._details import features_of
from safesail.explorer._listing import (
    Listing,
    Neighbours,
    Query,
    list_features,
    neighbours,
)
from safesail.explorer._search import Search
from safesail.explorer._summaries import Overview
from safesail.study import Study
from safesail.tables import Context, read_contexts

# Files are looked at for changes at most so often.
_LOOK_SECONDS = 1.0
# Features in memory at once with the contexts shown of them, and with all their contexts.
_AT_ONCE, _READ_TOGETHER = 500, 25


@dataclass(frozen=True)
class FeatureView:
    """All that a page shows of one feature.

    Attributes:
        row: its row of the catalog, with the best explanation.
        chosen: its rows of the features table, one per concept.
        explanations: its rows of the explanations table, best first.
        corrections: what people corrected of it, newest first.
        nearest: features of the same SAE by decoder cosine, those with a page, best first.
        groups: its contexts, few or all of each kind.
    """

    row: dict[str, Any]
    chosen: list[dict[str, Any]]
    explanations: list[dict[str, Any]]
    corrections: list[Correction]
    nearest: list[dict[str, Any]]
    groups: list[ContextGroup]


class Explorer:
    """Reads a study for pages; follows its files when they change. Needs no model.

    Args:
        study: the study.
        report: told what takes a while.

    Raises:
        StorageError: a result cannot be read.
    """

    def __init__(self, study: Study, report: Callable[[str], None] = lambda line: None) -> None:
        self.study = study
        self.search = Search(study, report)
        self._loading = threading.Lock()
        self._state = _State(Catalog(study))
        self._looked = time.monotonic()

    @property
    def catalog(self) -> Catalog:
        """The study's tables as they are now."""
        return self._current().catalog

    @property
    def overview(self) -> Overview:
        """What the whole study holds."""
        return self._current().overview

    def features(self, query: Query) -> Listing:
        """A page of a list of features."""
        catalog = self.catalog
        return list_features(catalog, query, self._hits(catalog, query))

    def neighbours(self, query: Query, number: int) -> Neighbours:
        """The features before and after one, by its number in the catalog, in a list."""
        catalog = self.catalog
        return neighbours(catalog, query, self._hits(catalog, query), number)

    def feature(self, sae: str, feature: int, shown: Shown = FEW) -> FeatureView | None:
        """All of one feature; None where there is no such feature.

        Raises:
            StorageError: its contexts cannot be read.
        """
        if (sae, feature) not in self.catalog.numbers:
            return None
        (view,) = self._views([(sae, feature)], shown)
        return view

    def views(
        self, features: Sequence[tuple[str, int]], shown: Shown = FEW
    ) -> Iterator[FeatureView]:
        """All of many features, in their order.

        Raises:
            StorageError: contexts cannot be read.
        """
        for first in range(0, len(features), _AT_ONCE):
            part = features[first : first + _AT_ONCE]
            # Neighbours lie together in the files: read in that order, each part is read once.
            found: dict[tuple[str, int], FeatureView] = {}
            lying = sorted(part)
            for begin in range(0, len(lying), _READ_TOGETHER):
                together = lying[begin : begin + _READ_TOGETHER]
                found |= zip(together, self._views(together, shown), strict=True)
            yield from (found[key] for key in part)

    def _views(self, keys: Sequence[tuple[str, int]], shown: Shown) -> list[FeatureView]:
        contexts: dict[tuple[str, int], list[Context]] = {}
        for sae in {sae for sae, _ in keys}:
            own = [feature for owner, feature in keys if owner == sae]
            for feature, rows in read_contexts(self.study.contexts(sae), own).items():
                contexts[sae, feature] = rows
        known = features_of(self.catalog, keys)
        return [
            FeatureView(**known[key], groups=context_groups(contexts.get(key, []), shown))
            for key in keys
        ]

    def correct(self, correction: Correction) -> None:
        """Keep what a person corrected; it is shown from now on.

        Raises:
            StorageError: it cannot be written.
        """
        write_correction(self.study, correction)
        self._load()

    def _hits(self, catalog: Catalog, query: Query) -> list[int] | None:
        return self.search.hits(catalog, query.q) if query.q else None

    def _current(self) -> _State:
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if signature(self.study) != self._state.catalog.signature:
                self._load()
            self.search.refresh(self._state.catalog)
        return self._state

    def _load(self) -> None:
        with self._loading:
            if signature(self.study) != self._state.catalog.signature:
                self._state = _State(Catalog(self.study))


class _State:
    """Tables and what was counted of them, replaced together."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @cached_property
    def overview(self) -> Overview:
        return Overview(self.catalog)
