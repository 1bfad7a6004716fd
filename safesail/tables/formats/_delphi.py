"""delphi's folders of explanations and scores.

    explanations/<hook point>_latent<i>.txt     the explanation, as a JSON string
    scores/<scorer>/<hook point>_latent<i>.txt  one object per example shown to the scorer

The second holds predictions of single examples, which safesail's tables do not keep: their places
are null. What safesail found stands in `scores/safesail/<hook point>_latent<i>.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safesail.errors import InputError
from safesail.tables._records import Context
from safesail.tables.formats._faults import fault, feature_index, parse_json, read_text
from safesail.tables.formats._folder import holds_only, write_file, written_folder
from safesail.tables.formats._rows import (
    SCORE_COLUMNS,
    Row,
    SaeTables,
    Score,
    as_column,
    best_of_each,
    foreign_scores,
    imported,
    marked_duplicates,
    own_scores,
    read_own_score,
    score,
    texts,
    told,
)
from safesail.tables.formats._text import clean, number, short_floats, to_json

DELPHI_CARRIED = (
    "layer",
    "feature",
    "language",
    "explanation",
    "explained_by",
    "concepts",
    "tags",
    "masked",
    *SCORE_COLUMNS,
    "imported_scores",
)
"""Columns of the explanations table that come back from delphi's folders."""

_NAME = re.compile(r"(.+)_latent([0-9]+)\.(?:txt|json)", re.DOTALL)
_LAYER = re.compile(r"(?:^|\.)([0-9]{1,4})(?:\.|$)")
_OURS = "safesail"
_LEXICAL = "lexical"


def write_delphi(saes: Sequence[SaeTables], folder: Path, *, language: str | None = None) -> int:
    """Write explanations and scores, one file a feature.

    Args:
        saes: at most one SAE a hook point.
        folder: where; an earlier export there is replaced.
        language: of the explanations; None where there is only one.

    Returns:
        Number of explanations.

    Raises:
        InputError: two SAEs of one hook point, explanations in several languages and none named,
            or the folder holds other things.
        StorageError: it cannot be written.
    """
    languages = sorted({row["language"] for sae in saes for row in told(sae.explanations)})
    if language is None and len(languages) > 1:
        raise InputError(
            f"delphi's files hold one language, there are {', '.join(languages)}: name one with "
            "--language"
        )
    owners: dict[str, str] = {}
    for sae in saes:
        other = owners.setdefault(_hook_point(sae), sae.sae)
        if other != sae.sae:
            raise InputError(f"{other} and {sae.sae} read one hook point: name one with --sae")
    count = 0
    with written_folder(folder, holds_only("explanations", "scores")) as new:
        for sae in saes:
            rows = [r for r in told(sae.explanations, language) if r["explanation"] is not None]
            best = {row["feature"]: row for row in best_of_each(rows)}
            for feature, contexts in sae.contexts_of(list(best)):
                _write_feature(new, _hook_point(sae), best[feature], contexts)
            count += len(best)
    return count


def _hook_point(sae: SaeTables) -> str:
    """The hook point as part of a file's name, `/` written as delphi writes it."""
    name = (sae.hook_point or f"layers.{sae.layer}").replace("/", "--")
    return re.sub(r"[^\w.-]", "-", name)


def _write_feature(folder: Path, hook_point: str, row: Row, contexts: Iterable[Context]) -> None:
    name = f"{hook_point}_latent{row['feature']}"
    write_file(folder / "explanations" / f"{name}.txt", to_json(row["explanation"]))
    found = {
        "language": row["language"],
        "explainer": row["explainer"],
        "explained_by": row["explained_by"],
        "concepts": row["concepts"],
        "tags": row["tags"],
        "source": row["source"],
        "scores": {s.name: {"value": s.value, **s.details} for s in own_scores(row)},
        "imported_scores": foreign_scores(row),
    }
    write_file(folder / "scores" / _OURS / f"{name}.json", to_json(found, indent=1) + "\n")
    examples = [_example(context) for context in contexts if context.split == "score"]
    if own_scores(row) and row["status"] != "imported" and examples:
        scorer = row["scorer"] or _LEXICAL
        write_file(folder / "scores" / scorer / f"{name}.txt", to_json(examples))


def _example(context: Context) -> dict[str, Any]:
    """A window as delphi keeps it, `distance` being the activation level, 0 where silent."""
    return {
        "str_tokens": context.tokens,
        "activations": short_floats(context.activations),
        "distance": context.level,
        "activating": context.kind == "active",
        "prediction": None,
        "probability": None,
        "correct": None,
    }


def read_delphi(path: Path) -> list[Row]:
    """Rows of a delphi folder: its explanations, and what `scores/` says of each.

    Of a scorer that tells examples apart, the share that it told right is kept; of others how
    many examples there are. A folder that safesail wrote gives back its own scores.

    Raises:
        InputError: there are no explanations, or a file is malformed; it is named.
    """
    root = path.parent if path.name == "explanations" else path
    files = sorted((root / "explanations").glob("*_latent*.txt"))
    if not files:
        raise fault(path, "", "holds no explanations/<hook point>_latent<i>.txt")
    scores: dict[str, list[Path]] = {}
    for file in sorted((root / "scores").glob("*/*_latent*")):
        scores.setdefault(file.stem, []).append(file)
    return marked_duplicates([_row(file, scores.get(file.stem, [])) for file in files])


def _row(path: Path, scores: Sequence[Path]) -> Row:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise fault(path, "", "its name is not `<hook point>_latent<i>.txt`")
    layer = _LAYER.search(match[1])
    explanation = parse_json(path, "", read_text(path))
    if not isinstance(explanation, str | None):
        raise fault(path, "", "holds neither a JSON string nor null")
    ours = [file for file in scores if file.parent.name == _OURS]
    foreign = [_summary(file) for file in scores if file.parent.name != _OURS]
    columns: Row = {"language": None, "concepts": None, "tags": None, "explained_by": None}
    for file in ours:
        found, more = _own(file)
        columns |= found
        # Examples that nobody predicted stand beside our own scores and add nothing.
        foreign = [*more, *(s for s in foreign if s["value"] is not None)]
    return imported(
        int(layer[1]) if layer else None,
        feature_index(path, "its name", match[2]),
        explanation,
        imported_scores=as_column(foreign),
        **columns,
    )


def _own(path: Path) -> tuple[Row, list[Score]]:
    """What safesail wrote of a feature: columns, and scores that it had imported."""
    content = parse_json(path, "", read_text(path))
    if not isinstance(content, dict):
        raise fault(path, "", "holds no JSON object")
    columns: Row = {key: texts(content.get(key)) for key in ("concepts", "tags")}
    for key in ("language", "explained_by"):
        value = content.get(key)
        columns[key] = clean(value) if isinstance(value, str) else None
    scores = content.get("scores")
    for name, details in scores.items() if isinstance(scores, dict) else ():
        if name in ("correlation", "discrimination") and isinstance(details, dict):
            columns |= read_own_score(name, number(details.get("value")), details)
    foreign = content.get("imported_scores")
    return columns, [_foreign(path, one) for one in (foreign if isinstance(foreign, list) else [])]


def _foreign(path: Path, value: Any) -> Score:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise fault(path, "`imported_scores`", "holds something else than scores")
    model, details = value.get("model"), value.get("details")
    return score(
        clean(value["type"]),
        clean(model) if isinstance(model, str) else None,
        number(value.get("value")),
        clean(details) if isinstance(details, str) else "",
    )


def _summary(path: Path) -> Score:
    """What a scorer's file comes to: the share of answered examples that it told right."""
    content = parse_json(path, "", read_text(path))
    examples = content if isinstance(content, list) else [content]
    if not all(isinstance(example, dict) for example in examples):
        raise fault(path, "", "holds something else than objects, one per example")
    correct = [e["correct"] for e in examples if isinstance(e.get("correct"), bool)]
    details = {"value": "share correct", "answered": len(correct), "examples": len(examples)}
    value = sum(correct) / len(correct) if correct else None
    return score(clean(path.parent.name), None, value, json.dumps(details))
