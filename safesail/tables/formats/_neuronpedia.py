"""Neuronpedia's bulk files.

    config/explanation_type.jsonl ...          names that the other files use
    v1/<modelId>/<sourceId>/release.jsonl      and model, sourceset, source
    v1/<modelId>/<sourceId>/features/batch-0.jsonl.gz
                           /activations/  /explanations/  /explanation_scores/

A batch holds what belongs to 1,024 features. Neuronpedia's own export leaves scores out; the last
folder holds rows of its table ExplanationScore.
"""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from safesail.errors import InputError
from safesail.tables.formats._folder import holds_only, written_folder
from safesail.tables.formats._neuronpedia_records import (
    activation_record,
    explanation_record,
    explanation_type,
    feature_record,
    score_records,
)
from safesail.tables.formats._neuronpedia_sources import (
    Place,
    Record,
    model_record,
    release_record,
    source_record,
    sourceset_record,
    type_records,
    with_creator,
)
from safesail.tables.formats._rows import SCORE_COLUMNS, Row, SaeTables, told
from safesail.tables.formats._text import to_json

NEURONPEDIA_CARRIED = (
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
"""Columns of the explanations table that come back from Neuronpedia's files."""

BATCH = 1024
"""Features whose records are one file."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def write_neuronpedia(
    saes: Sequence[SaeTables],
    folder: Path,
    *,
    model: str,
    model_id: str | None = None,
    set_name: str | None = None,
) -> int:
    """Write bulk files, one source an SAE; the same tables give the same bytes.

    Args:
        saes: what is exported; features without any record are left out.
        folder: where; an earlier export there is replaced.
        model: name of the language model.
        model_id: Neuronpedia's id of it; by default made from the name.
        set_name: of the source set; by default `safesail-<sae>`.

    Returns:
        Number of explanations.

    Raises:
        InputError: an id or name that Neuronpedia does not take, two SAEs of one source, or the
            folder holds other things.
        StorageError: it cannot be written.
    """
    model_id = _checked(model_id or _slug(model.rpartition("/")[2]).lower(), "model id")
    places: dict[str, tuple[Place, SaeTables]] = {}
    for sae in saes:
        set = _checked(set_name or f"safesail-{_slug(sae.sae)}", "set name")
        moments = [row["created_at"] for row in sae.explanations]
        place = Place(model_id, set, f"{sae.layer}-{set}", min(moments, default=None))
        _, other = places.setdefault(place.source, (place, sae))
        if other is not sae:
            raise InputError(
                f"{other.sae} and {sae.sae} would both be source {place.source}: name one with "
                "--sae, or leave out --set-name"
            )
    with written_folder(folder, holds_only("v1", "config")) as new:
        _write_config(new / "config", list(places.values()))
        written = [
            _write_source(new / "v1" / model_id / place.source, place, sae, model)
            for place, sae in places.values()
        ]
    return sum(written)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "model"


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(f"{what} {name!r}: Neuronpedia takes letters, digits, `-` and `_`")
    return name


def _write_config(folder: Path, sources: Sequence[tuple[Place, SaeTables]]) -> None:
    if not sources:
        return
    place = min((place for place, _ in sources), key=lambda place: place.moment)
    rows = [(place, row) for place, sae in sources for row in _explained(sae)]
    scores = [record for place, row in rows for record in score_records(place, row, "")]
    methods = type_records(
        (explanation_type(row) for _, row in rows), place, "who explained: a judge, word statistics"
    )
    explainers = type_records(
        (row["explained_by"] for _, row in rows if row["explained_by"]), place, "language model"
    )
    kinds = type_records(
        (record["explanationScoreTypeName"] for record in scores), place, "see jsonDetails"
    )
    judges = type_records(
        (record["explanationScoreModelName"] for record in scores), place, "language model"
    )
    more = {"explainerModelSettingsId": None, "settings": None}
    _lines(folder / "explanation_type.jsonl", ({**r, **more} for r in with_creator(methods)))
    more = {"scoreDescription": None, "scorerModel": None, "settings": None}
    _lines(folder / "explanation_score_type.jsonl", ({**r, **more} for r in with_creator(kinds)))
    more = {"openRouterModelId": None}
    _lines(folder / "explanation_model_type.jsonl", ({**r, **more} for r in explainers))
    _lines(folder / "explanation_score_model.jsonl", ({**r, **more} for r in judges))
    _lines(folder / "eval_type.jsonl", [])


def _write_source(folder: Path, place: Place, sae: SaeTables, model: str) -> int:
    description = f"Safety features of SAE {sae.sae}, explained by safesail"
    published = sae.published.partition(":") if sae.published else None
    saelens = (published[0], published[2]) if published else None
    _lines(folder / "release.jsonl", [release_record(place, description)])
    _lines(folder / "model.jsonl", [model_record(place, model)])
    _lines(folder / "sourceset.jsonl", [sourceset_record(place, description)])
    _lines(folder / "source.jsonl", [source_record(place, saelens)])
    explained: dict[int, list[Row]] = {}
    for row in _explained(sae):
        explained.setdefault(row["feature"], []).append(row)
    known = {row["feature"]: row for row in reversed(sae.features)}
    features = sorted(known.keys() | explained.keys())
    for number, start in enumerate(range(0, len(features), BATCH)):
        batch = features[start : start + BATCH]
        _write_batch(folder, number, place, sae, batch, known, explained)
    return sum(len(rows) for rows in explained.values())


def _explained(sae: SaeTables) -> list[Row]:
    """Rows with an explanation, which Neuronpedia requires."""
    return [row for row in told(sae.explanations) if row["explanation"] is not None]


def _write_batch(
    folder: Path,
    number: int,
    place: Place,
    sae: SaeTables,
    features: Sequence[int],
    known: dict[int, Row],
    explained: dict[int, list[Row]],
) -> None:
    name = f"batch-{number}.jsonl.gz"
    explanations, scores = [], []
    for feature in features:
        for at, row in enumerate(explained.get(feature, [])):
            id = place.id("explanation", feature, at, row["explanation"])
            explanations.append(explanation_record(place, row, id))
            scores += score_records(place, row, id)
    records: dict[str, Iterable[Record]] = {
        "features": (feature_record(place, f, known.get(f), sae.hook_point) for f in features),
        "activations": _activations(place, sae, features),
        "explanations": explanations,
        "explanation_scores": scores,
    }
    for kind, lines in records.items():
        _lines(folder / kind / name, lines)


def _activations(place: Place, sae: SaeTables, features: Sequence[int]) -> Iterator[Record]:
    for _, contexts in sae.contexts_of(features):
        # Active contexts, each once, strongest first.
        active = {(c.document, c.start): c for c in contexts if c.kind == "active"}
        for context in sorted(active.values(), key=lambda c: (-c.peak, c.document, c.start)):
            yield activation_record(place, context)


def _lines(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, contextlib.ExitStack() as stack:
        target: IO[bytes] = file
        if path.suffix == ".gz":
            # Without name and time in its header, a second export is the same file.
            archive = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            target = cast(IO[bytes], stack.enter_context(archive))
        for record in records:
            target.write(to_json(record).encode() + b"\n")
