"""Lists of features: filtered, sorted, paged, and all of that in a query string."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from safesail.explorer._catalog import Catalog

PAGE_SIZE = 50
# A query string has its limits, in browsers and here.
_LONGEST_TEXT = 300
_MOST_FEATURES = 500
_LARGEST = 2**53

SORTS = {
    "discrimination": "discrimination",
    "discrimination_low": "discrimination_low",
    "correlation": "correlation",
    "separation": "separation",
    "specificity": "specificity",
    "density": "density",
    "max_activation": "max_activation",
    "feature": "feature",
    "sae": "sae",
    "layer": "layer",
    "status": "status",
}
"""What a list may be sorted by, with its column."""

COLUMNS = (
    "id, sae, layer, feature, concepts, explanation, corrected_by, explainer, source, judge_model, "
    "status, "
    "discrimination, discrimination_low, discrimination_high, "
    "correlation, correlation_low, correlation_high, separation, density, max_activation"
)


@dataclass(frozen=True)
class Query:
    """A list of features; the empty one holds them all, best discrimination first.

    Attributes:
        q: words of explanations, contexts and concepts.
        concept: a concept, its children included.
        sae: name of an SAE.
        layer: a layer.
        status: a status of explanations or features.
        low: least discrimination.
        high: largest discrimination.
        features: indices of features, as the landscape selects them.
        sort: a key of `SORTS`, or `match` for the best hits of `q` first.
        descending: largest first.
        page: number of the page, from 1.
    """

    q: str = ""
    concept: str = ""
    sae: str = ""
    layer: int | None = None
    status: str = ""
    low: float | None = None
    high: float | None = None
    features: tuple[int, ...] = ()
    sort: str = ""
    descending: bool = True
    page: int = 1

    @classmethod
    def from_parameters(cls, given: Mapping[str, str]) -> Query:
        """Read a query string; what makes no sense in it counts as not given."""
        sort = given.get("sort", "")
        numbers = (_whole(part) for part in given.get("features", "").split(",")[:_MOST_FEATURES])
        return cls(
            q=" ".join(given.get("q", "")[:_LONGEST_TEXT].split()),
            concept=given.get("concept", "")[:_LONGEST_TEXT],
            sae=given.get("sae", "")[:_LONGEST_TEXT],
            layer=_whole(given.get("layer", "")),
            status=given.get("status", "")[:_LONGEST_TEXT],
            low=_decimal(given.get("low", "")),
            high=_decimal(given.get("high", "")),
            features=tuple(number for number in numbers if number is not None),
            sort=sort if sort in (*SORTS, "match") else "",
            descending=given.get("order", "") != "ascending",
            page=max(1, _whole(given.get("page", "")) or 1),
        )

    def to_parameters(self) -> str:
        """The query string that makes this query; what is as always is left out."""
        values = {
            **asdict(self),
            "features": ",".join(map(str, self.features)),
            "order": "" if self.descending else "ascending",
            "page": self.page if self.page > 1 else "",
        }
        del values["descending"]
        return urlencode({k: _written(v) for k, v in values.items() if v not in ("", None)})

    def with_changes(self, **changes: Any) -> Query:
        """The same list but for some of its fields, from its first page."""
        return replace(self, **{"page": 1, **changes})

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves anything out."""
        bare = Query(sort=self.sort, descending=self.descending, page=self.page)
        return self != bare


@dataclass(frozen=True)
class Listing:
    """A page of a list.

    Attributes:
        rows: features with their best explanation, at most `PAGE_SIZE`.
        total: features in the whole list.
        pages: pages of the whole list, at least 1.
    """

    rows: list[dict[str, Any]]
    total: int
    pages: int


@dataclass(frozen=True)
class Neighbours:
    """Where a feature stands in a list; 1 is first, None where it is not in the list."""

    place: int | None
    total: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def list_features(catalog: Catalog, query: Query, hits: list[int] | None) -> Listing:
    """A page of the features that a query asks for.

    Args:
        catalog: the study's tables.
        query: what is asked.
        hits: rows of the catalog that hold the words of `query.q`, best first; None without words.
    """
    source, values = _source(query, hits)
    first = (query.page - 1) * PAGE_SIZE
    # Features beyond the last page are none, however large the number of the page is.
    values |= {"size": PAGE_SIZE, "first": min(first, 2**40)}
    # Sorted by number first: the texts of all features would be carried along otherwise.
    place = f"row_number() OVER (ORDER BY {_order(query, hits)})"
    rows = catalog.rows(
        f"SELECT {COLUMNS}, total FROM catalog JOIN ("
        f"  SELECT id, count(*) OVER () AS total, {place} AS place FROM {source}"
        "  ORDER BY place LIMIT $size OFFSET $first"
        ") USING (id) ORDER BY place",
        values,
    )
    total = rows[0].pop("total") if rows else 0
    for row in rows[1:]:
        del row["total"]
    if not rows and first:
        counted = {k: v for k, v in values.items() if k not in ("size", "first")}
        total = catalog.rows(f"SELECT count(*) AS total FROM {source}", counted)[0]["total"]
    return Listing(rows, total, max(1, math.ceil(total / PAGE_SIZE)))


def neighbours(catalog: Catalog, query: Query, hits: list[int] | None, number: int) -> Neighbours:
    """The features before and after one in a list."""
    source, values = _source(query, hits)
    rows = catalog.rows(
        "SELECT * FROM ("
        f"  SELECT id, row_number() OVER placed AS place, count(*) OVER () AS total,"
        f"    lag(sae) OVER placed AS sae_before, lag(feature) OVER placed AS before,"
        f"    lead(sae) OVER placed AS sae_after, lead(feature) OVER placed AS after"
        f"  FROM {source} WINDOW placed AS (ORDER BY {_order(query, hits)})"
        ") WHERE id = $number",
        values | {"number": number},
    )
    if not rows:
        return Neighbours(None, 0, None, None)
    (row,) = rows
    return Neighbours(
        row["place"],
        row["total"],
        _named(row["sae_before"], row["before"]),
        _named(row["sae_after"], row["after"]),
    )


def _named(sae: str | None, feature: int | None) -> dict[str, Any] | None:
    return None if sae is None else {"sae": sae, "feature": feature}


def _source(query: Query, hits: list[int] | None) -> tuple[str, dict[str, Any]]:
    """Table and conditions; only what a query gives as values varies, and stands in parameters."""
    values: dict[str, Any] = {}
    conditions = ["true"]
    table = "catalog"
    if hits is not None:
        # Hits come best first: their place is the order of `match`.
        table = (
            "catalog JOIN (SELECT unnest($hits) AS id, "
            "unnest(range(len($hits))) AS match) AS hit USING (id)"
        )
        values["hits"] = hits
    if query.concept:
        conditions.append(
            "id IN (SELECT id FROM of_concept "
            "WHERE concept = $concept OR starts_with(concept, $concept || '/'))"
        )
        values["concept"] = query.concept
    for field, condition in (
        ("sae", "sae = $sae"),
        ("layer", "layer = $layer"),
        ("status", "status = $status"),
        ("low", "discrimination >= $low"),
        ("high", "discrimination <= $high"),
    ):
        value = getattr(query, field)
        if value not in ("", None):
            conditions.append(condition)
            values[field] = value
    if query.features:
        conditions.append("feature IN (SELECT unnest($features))")
        values["features"] = list(query.features)
    return f"{table} WHERE {' AND '.join(conditions)}", values


def _order(query: Query, hits: list[int] | None) -> str:
    if hits is not None and query.sort in ("", "match"):
        return "match"
    column = SORTS.get(query.sort, "discrimination")
    direction = "DESC" if query.descending else "ASC"
    # What has no value comes last either way; NaN is no value.
    return f"{column} IS NULL OR {_is_nan(column)}, {column} {direction}, sae, feature"


def _is_nan(column: str) -> str:
    return "false" if column in ("feature", "sae", "layer", "status") else f"isnan({column})"


def _whole(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > 16:
        return None
    value = int(text)
    return value if value <= _LARGEST else None


def _decimal(text: str) -> float | None:
    try:
        value = float(text[:20])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
