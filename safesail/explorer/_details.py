"""All that the tables say of some features."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from safesail.explorer._catalog import RANK, Catalog
from safesail.explorer._listing import COLUMNS

Key = tuple[str, int]
_WANTED = (
    "JOIN (SELECT unnest($saes::VARCHAR[]) AS sae, unnest($features::BIGINT[]) AS feature) "
    "AS wanted USING (sae, feature)"
)


def features_of(catalog: Catalog, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """Of each feature `row`, `chosen`, `explanations`, `corrections` and `nearest`.

    Args:
        catalog: the study's tables.
        keys: SAE and index of features that are in the catalog.
    """
    wanted = {"saes": [sae for sae, _ in keys], "features": [feature for _, feature in keys]}
    rows = catalog.rows(
        f"SELECT {COLUMNS}, language, concepts_corrected FROM catalog {_WANTED}", wanted
    )
    found: dict[Key, dict[str, Any]] = {_key(row): {"row": row} for row in rows}
    chosen = _by_key(
        catalog.rows(
            f"SELECT * FROM features {_WANTED} ORDER BY separation DESC NULLS LAST, concept", wanted
        )
    )
    explanations = _by_key(
        catalog.rows(
            f"SELECT * FROM explanations {_WANTED} ORDER BY {RANK}",
            wanted | {"language": catalog.language},
        )
    )
    near = {key: (rows[0]["nearest_features"] or []) for key, rows in chosen.items()}
    known = _nearest(catalog, near)
    for (sae, feature), entry in found.items():
        key = sae, feature
        near_by = [(sae, number) for number in near.get(key, [])]
        entry |= {
            "chosen": chosen[key],
            "explanations": explanations[key],
            "corrections": [c for c in catalog.corrections if (c.sae, c.feature) == key][::-1],
            "nearest": [known[one] for one in near_by if one in known],
        }
    return found


def _nearest(catalog: Catalog, near: dict[Key, list[int]]) -> dict[Key, dict[str, Any]]:
    """Rows of the catalog of all features that are near one."""
    keys = {(sae, feature) for (sae, _), features in near.items() for feature in features}
    if not keys:
        return {}
    wanted = {"saes": [sae for sae, _ in keys], "features": [feature for _, feature in keys]}
    rows = catalog.rows(f"SELECT sae, feature, explanation, status FROM catalog {_WANTED}", wanted)
    return {_key(row): row for row in rows}


def _by_key(rows: list[dict[str, Any]]) -> defaultdict[Key, list[dict[str, Any]]]:
    found: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[_key(row)].append(row)
    return found


def _key(row: dict[str, Any]) -> Key:
    return row["sae"], row["feature"]
