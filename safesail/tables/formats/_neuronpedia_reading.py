"""Read explanations, and their scores, from Neuronpedia's bulk files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safesail.tables.formats._faults import fault, feature_index, json_lines
from safesail.tables.formats._neuronpedia_records import OWN_SCORE, model_of_score
from safesail.tables.formats._rows import (
    Row,
    Score,
    as_column,
    imported,
    marked_duplicates,
    read_own_score,
    score,
    texts,
)
from safesail.tables.formats._text import clean, number

_SOURCE = re.compile(r"([0-9]{1,4})(?:-.*)?", re.DOTALL)
_FILE = re.compile(r".*\.jsonl(?:\.gz)?")
_BATCH = re.compile(r"batch-(\d+)")
_EXPLANATIONS, _SCORES = "explanations", "explanation_scores"
_LANGUAGE = re.compile(r"[A-Za-z0-9-]{1,35}")


def read_neuronpedia(path: Path) -> list[Row]:
    """Rows of a file of explanations, of a source's folder, or of all sources below a folder.

    Scores are read from `explanation_scores/`, where it lies beside `explanations/`.

    Raises:
        InputError: there are no explanations, or a line is malformed; file and line are named.
    """
    files = _files(path, _EXPLANATIONS)
    if not files:
        raise fault(path, "", "holds no explanations/batch-*.jsonl(.gz)")
    scores: dict[str, list[Score]] = {}
    for file in _scores_beside(path):
        for where, record in json_lines(file):
            id = _text(file, where, record, "explanationId")
            scores.setdefault(id, []).append(_score(file, where, record))
    rows = [_row(file, where, r, scores) for file in files for where, r in json_lines(file)]
    return marked_duplicates(rows)


def _files(path: Path, kind: str) -> list[Path]:
    if path.is_file():
        return [path]
    within = path.glob("*") if path.name == kind else path.rglob(f"{kind}/*")
    return sorted((p for p in within if _FILE.fullmatch(p.name)), key=_order)


def _scores_beside(path: Path) -> list[Path]:
    folder = path.parent if path.is_file() else path
    if folder.name == _EXPLANATIONS:
        return _files(folder.parent / _SCORES, _SCORES)
    return [] if path.is_file() else _files(path, _SCORES)


def _order(path: Path) -> tuple[Path, int, str]:
    match = _BATCH.match(path.name)
    return path.parent, int(match[1]) if match else -1, path.name


def _row(path: Path, where: str, record: dict[str, Any], scores: dict[str, list[Score]]) -> Row:
    source = _text(path, where, record, "layer")
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise fault(path, where, f"`layer` {source[:40]!r} is no source such as `6-res-jb`")
    feature = feature_index(path, where, _index(path, where, record))
    description = record.get("description")
    if not isinstance(description, str | None):
        raise fault(path, where, "`description` is neither text nor null")
    model = record.get("explanationModelName")
    id = record.get("id")
    return imported(
        int(match[1]),
        feature,
        description,
        explained_by=clean(model) if isinstance(model, str) else None,
        **_notes(record.get("notes")),
        **_columns(scores.get(id, []) if isinstance(id, str) else []),
    )


def _text(path: Path, where: str, record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise fault(path, where, f"`{key}` is missing, or no text")
    return value


def _index(path: Path, where: str, record: dict[str, Any]) -> str:
    """The index, which is text in Neuronpedia's files; a whole number says as much."""
    value = record.get("index")
    return str(value) if type(value) is int else _text(path, where, record, "index")


def _notes(notes: Any) -> Row:
    """What safesail writes into notes; of others, nothing."""
    found: Row = {"language": None, "concepts": None, "tags": None}
    stated = _object(notes)
    language = stated.get("language")
    if isinstance(language, str) and _LANGUAGE.fullmatch(language):
        found["language"] = language
    return found | {key: texts(stated.get(key)) for key in ("concepts", "tags")}


def _object(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _score(path: Path, where: str, record: dict[str, Any]) -> Score:
    value = record.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise fault(path, where, "`value` is no number")
    value = number(value)  # a score that is undefined, NaN or null, is none
    details = record.get("jsonDetails")
    return score(
        clean(_text(path, where, record, "explanationScoreTypeName")),
        model_of_score(clean(_text(path, where, record, "explanationScoreModelName"))),
        value,
        clean(details) if isinstance(details, str) else "",
    )


def _columns(scores: Iterable[Score]) -> Row:
    """Scores of safesail go into their columns, others are kept under their type's name."""
    found: Row = {}
    foreign = []
    for one in scores:
        name = one["type"].removeprefix(OWN_SCORE)
        if one["type"] in (f"{OWN_SCORE}correlation", f"{OWN_SCORE}discrimination"):
            found |= read_own_score(name, one["value"], _object(one["details"]))
        else:
            foreign.append(one)
    return {**found, "imported_scores": as_column(foreign)}
