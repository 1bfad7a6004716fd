"""Safe-SAIL's neuron database and lists of features.

The database is one JSON object per language, `{"17_4213": {"explanation": ...,
"correlation_score": ..., "tag_list": [...]}}`, the key being layer and feature. Beside it lie
`indices_layer17.pt`, one-dimensional tensors of the features chosen at a layer, with repeats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safesail.errors import InputError
from safesail.tables.formats._faults import fault, feature_index, parse_json, read_text
from safesail.tables.formats._folder import holds_only, write_file, written_folder
from safesail.tables.formats._rows import (
    Row,
    SaeTables,
    best_of_each,
    imported,
    marked_duplicates,
    texts,
    told,
)
from safesail.tables.formats._text import number, to_json

SAFE_SAIL_CARRIED = (
    "layer",
    "feature",
    "language",
    "explanation",
    "correlation",
    "tags",
    "masked",
)
"""Columns of the explanations table that come back from a database."""

_KEY = re.compile(r"([0-9]{1,4})_([0-9]+)")
_INDICES = re.compile(r"indices_layer_?([0-9]{1,4})\.pt")
# As safesail names its files, and as Safe-SAIL does, where `cn` is Chinese.
_LANGUAGE = re.compile(r"neuron_db_([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\.json|([a-z]{2})_db\.json")
_COUNTRIES = {"cn": "zh"}


class _Pairs(list[tuple[str, Any]]):
    """The entries of a JSON object, a key that comes twice twice."""


def write_safe_sail(saes: Sequence[SaeTables], folder: Path) -> int:
    """Write `neuron_db_<language>.json` for each language, keys in order.

    Args:
        saes: at most one SAE a layer: the format's keys tell no more apart.
        folder: where; an earlier export there is replaced.

    Returns:
        Number of entries.

    Raises:
        InputError: two SAEs of one layer have explanations, or the folder holds other things.
        StorageError: it cannot be written.
    """
    _require_one_a_layer(saes)
    databases: dict[str, dict[str, Any]] = {}
    for sae in sorted(saes, key=lambda sae: sae.layer):
        rows = told(sae.explanations)
        for language in sorted({row["language"] for row in rows}):
            entries = databases.setdefault(language, {})
            for row in best_of_each(told(rows, language)):
                entries[f"{row['layer']}_{row['feature']}"] = {
                    "explanation": row["explanation"],
                    "correlation_score": number(row["correlation"]),
                    "tag_list": _tags(row),
                }
    names = {language: f"neuron_db_{_file_part(language)}.json" for language in databases}
    with written_folder(folder, holds_only("neuron_db_*.json")) as new:
        for language, entries in databases.items():
            write_file(new / names[language], to_json(entries, indent=1) + "\n")
    return sum(len(entries) for entries in databases.values())


def _require_one_a_layer(saes: Sequence[SaeTables]) -> None:
    by_layer: dict[int, str] = {}
    for sae in saes:
        other = by_layer.setdefault(sae.layer, sae.sae)
        if other != sae.sae:
            raise InputError(
                f"{other} and {sae.sae} both read layer {sae.layer}, which Safe-SAIL's keys do "
                "not tell apart: name one with --sae"
            )


def _tags(row: Row) -> list[str]:
    """What a row was tagged with; of rows made here the top-level concepts."""
    if row["tags"] is not None:
        return list(row["tags"])
    concepts = row["judge_concepts"] if row["judge_concepts"] is not None else row["concepts"]
    return list(dict.fromkeys(concept.partition("/")[0] for concept in concepts))


def _file_part(language: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", language):
        raise InputError(f"{language!r} is not the tag of a language, such as `en`")
    return language


def read_safe_sail(path: Path) -> list[Row]:
    """Rows of a database, or of a list of features, which has no explanations.

    Null explanations and masked ones are kept. Entries of one feature that say the same become
    one row; others stay; `duplicates` counts the further entries.

    Raises:
        InputError: the file is not one of the two; the key or place is named.
    """
    if path.is_dir():
        raise fault(path, "", "is a folder: give a database (.json) or a list of features (.pt)")
    if path.suffix == ".pt":
        return _read_indices(path)
    content = parse_json(path, "", read_text(path), _Pairs)
    if not isinstance(content, _Pairs):
        raise fault(path, "", "holds no JSON object of entries such as `17_4213`")
    language = _language(path.name)
    return marked_duplicates([_entry(path, key, value, language) for key, value in content])


def _language(name: str) -> str | None:
    match = _LANGUAGE.fullmatch(name)
    if match is None:
        return None
    return match[1] or _COUNTRIES.get(match[2], match[2])


def _entry(path: Path, key: str, value: Any, language: str | None) -> Row:
    where = f"key {key[:40]!r}"
    match = _KEY.fullmatch(key)
    if match is None:
        raise fault(path, where, "not layer and feature, such as `17_4213`")
    if not isinstance(value, _Pairs):
        raise fault(path, where, "its value is no JSON object")
    entry = dict(value)
    explanation, correlation = entry.get("explanation"), entry.get("correlation_score")
    if not isinstance(explanation, str | None):
        raise fault(path, where, "`explanation` is neither text nor null")
    if isinstance(correlation, bool) or not isinstance(correlation, int | float | None):
        raise fault(path, where, "`correlation_score` is neither a number nor null")
    if correlation is not None and abs(correlation) > 1:
        raise fault(path, where, "`correlation_score` lies outside -1 to 1")
    stated = entry.get("tag_list")
    tags = [] if stated is None else texts(stated)
    if tags is None:
        raise fault(path, where, "`tag_list` is no list of texts")
    return imported(
        int(match[1]),
        feature_index(path, where, match[2]),
        explanation,
        language=language,
        correlation=number(correlation),
        tags=tags,
    )


def _read_indices(path: Path) -> list[Row]:
    """Rows of a list of features, each once, with the number of its further entries."""
    match = _INDICES.fullmatch(path.name)
    layer = int(match[1]) if match else None
    return [
        {**imported(layer, feature, None), "duplicates": count - 1}
        for feature, count in sorted(Counter(_indices(path)).items())
    ]


def _indices(path: Path) -> list[int]:
    import pickle

    import torch

    try:
        # Tensors alone are read: code in the file is refused, not run.
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # What the library says here is how to run the code.
        raise fault(path, "", "holds something else than one tensor: it is not read") from None
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise fault(path, "", f"no tensor of features: {reason}") from None
    if (
        not isinstance(tensor, torch.Tensor)
        or tensor.layout is not torch.strided
        or tensor.dim() != 1
        or tensor.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8)
    ):
        raise fault(path, "", "holds no one-dimensional tensor of whole numbers")
    features = [int(value) for value in tensor.tolist()]
    for at, feature in enumerate(features):
        feature_index(path, f"entry {at}", str(feature))
    return features
