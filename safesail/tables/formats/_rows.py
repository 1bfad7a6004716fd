"""What the formats share: which rows they hold, and our scores as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from safesail.tables._best import explanation_rank
from safesail.tables._records import Context
from safesail.tables.formats._text import clean, number, plain, to_json

Row = dict[str, Any]
"""A row of a table, by column; an imported row has the columns that its file carries."""

Score = dict[str, Any]
"""A score of a foreign file: its type, model, value, and details as text."""

MASK = "***"
_INTERVAL = ("low", "high")
_SCORES = ("correlation", "discrimination")
_LEAST = {"correlation": -1.0, "discrimination": 0.0}
# What a score of safesail refers to.
_DETAILS = ("observations", "missing", "active_share", "mixture", "item_format", "scorer")
SCORE_COLUMNS = (
    *_SCORES,
    *(f"{score}_{end}" for score in _SCORES for end in _INTERVAL),
    *_DETAILS,
)
_COUNTS = ("observations", "missing")
_FEATURES_AT_ONCE = 64


@dataclass(frozen=True)
class SaeTables:
    """What a study holds of one SAE.

    Attributes:
        sae: its name.
        layer: number of its block.
        hook_point: TransformerLens name of what it reads; None where it is not known.
        published: `release:sae_id` of a published SAE; None of others.
        explanations: rows of the explanations table.
        features: rows of the features table.
        contexts: gives the contexts of some features, by feature.
    """

    sae: str
    layer: int
    hook_point: str | None
    explanations: list[Row]
    features: list[Row] = field(default_factory=list)
    contexts: Callable[[Iterable[int]], Mapping[int, list[Context]]] = lambda features: {}
    published: str | None = None

    def contexts_of(self, features: Sequence[int]) -> Iterator[tuple[int, list[Context]]]:
        """The contexts of each feature in turn, those of a few in memory at a time."""
        for start in range(0, len(features), _FEATURES_AT_ONCE):
            some = features[start : start + _FEATURES_AT_ONCE]
            found = self.contexts(some)
            for feature in some:
                yield feature, found.get(feature, [])


class Own(NamedTuple):
    """A score of safesail: its name, its value, and what it refers to."""

    name: str
    value: float
    details: dict[str, Any]


def told(rows: Iterable[Row], language: str | None = None) -> list[Row]:
    """Rows that say something of their feature: an explanation, or that a file has none."""
    return [
        row
        for row in rows
        if (row["explanation"] is not None or row["status"] == "imported")
        and language in (None, row["language"])
    ]


def best_of_each(rows: Iterable[Row]) -> list[Row]:
    """One row per feature, for formats that hold one: by feature (see `explanation_rank`)."""
    found: dict[int, Row] = {}
    for row in sorted(rows, key=explanation_rank):
        found[row["feature"]] = row  # the last is the best
    return [found[feature] for feature in sorted(found)]


def own_scores(row: Row) -> list[Own]:
    """The scores in a row's columns, those that are defined."""
    found = []
    for name in _SCORES:
        value = number(row[name])
        if value is not None:
            interval = {end: plain(row[f"{name}_{end}"]) for end in _INTERVAL}
            details = {key: plain(row[key]) for key in _DETAILS}
            found.append(Own(name, value, {**interval, "level": 0.95, **details}))
    return found


def read_own_score(name: str, value: float | None, details: Mapping[str, Any]) -> Row:
    """Columns of a score that safesail wrote; what is malformed is left out."""
    least = _LEAST[name]
    low, high = (number(details.get(end)) for end in _INTERVAL)
    if value is not None and not least <= value <= 1:
        return {}
    found: Row = {name: value}
    ends = (least, low, value, high, 1.0)
    if None not in ends and list(ends) == sorted(ends):  # type: ignore[type-var]
        found |= {f"{name}_low": low, f"{name}_high": high}
    for key in _DETAILS:
        stated = details.get(key)
        if key in _COUNTS:
            valid = isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated < 2**53
        elif key == "active_share":
            valid, stated = number(stated) is not None, number(stated)
        else:
            valid = isinstance(stated, str)
        if valid:
            found[key] = clean(stated) if isinstance(stated, str) else stated
    return found


def foreign_scores(row: Row) -> list[Score]:
    """The scores of an imported row that have no column."""
    return list(json.loads(row["imported_scores"])) if row["imported_scores"] else []


def as_column(scores: Sequence[Score]) -> str | None:
    """The column `imported_scores`; None without scores."""
    if not scores:
        return None
    return json.dumps(plain(list(scores)), ensure_ascii=False, sort_keys=True, allow_nan=False)


def score(type: str, model: str | None, value: float | None, details: str = "") -> Score:
    """A score of a foreign file."""
    return {"type": type, "model": model, "value": value, "details": details}


def texts(value: Any) -> list[str] | None:
    """A list of texts, clean; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return [clean(item) for item in value]


def imported(layer: int | None, feature: int, explanation: str | None, **columns: Any) -> Row:
    """An imported row: where the file does not say a layer, it is None."""
    text = None if explanation is None else clean(explanation)
    return {
        "layer": layer,
        "feature": feature,
        "explanation": text,
        "masked": text is not None and MASK in text,
        "duplicates": 0,
        **columns,
    }


def marked_duplicates(rows: Sequence[Row]) -> list[Row]:
    """Rows that say the same as one before are left out; each states how many more there are."""
    by_feature: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("layer", "feature", "language"))
        by_feature.setdefault(key, []).append(row)
    found = []
    for entries in by_feature.values():
        distinct = {to_json(row): row for row in entries}
        found += [{**row, "duplicates": len(entries) - 1} for row in distinct.values()]
    return found
