"""Explanations that others wrote, beside a study's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from safesail.errors import InputError, StudyConflictError
from safesail.pipeline._imported import IMPORTED
from safesail.pipeline._lock import held
from safesail.pipeline._selection import chosen_for
from safesail.pipeline._workspace import Workspace, no_progress, rows_of
from safesail.study import Study, language_tag
from safesail.tables import (
    EXPLANATIONS,
    FEATURES,
    RANKINGS,
    read_configuration,
    table_from_rows,
    write_table,
)
from safesail.tables.formats import Row, read_delphi, read_neuronpedia, read_safe_sail

ImportFormat = Literal["safe-sail", "neuronpedia", "delphi"]

_READERS: dict[ImportFormat, Callable[[Path], list[Row]]] = {
    "safe-sail": read_safe_sail,
    "neuronpedia": read_neuronpedia,
    "delphi": read_delphi,
}
_DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True)
class Imported:
    """What an import brought.

    Attributes:
        rows: rows of the explanations table, by SAE.
        replaced: rows of an earlier import of the same file that they took the place of.
        left_out: rows of layers that were not asked for.
    """

    rows: Mapping[str, list[Row]]
    replaced: int
    left_out: int

    def counts(self, sae: str) -> dict[str, int]:
        """Of an SAE: rows, those without explanation, masked ones, and features named twice."""
        rows = self.rows[sae]
        return {
            "rows": len(rows),
            "null": sum(row["explanation"] is None for row in rows),
            "masked": sum(row["masked"] for row in rows),
            "duplicated": len({row["feature"] for row in rows if row["duplicates"]}),
        }


@dataclass(frozen=True)
class _Sae:
    """What a study knows of an SAE: number of its block, and of its features."""

    layer: int | None
    width: int | None


def import_explanations(
    study: Study,
    path: Path,
    format: ImportFormat,
    *,
    language: str | None = None,
    sae: str | None = None,
    layer: int | None = None,
) -> Imported:
    """Add the explanations of a file or folder to the study's tables.

    They keep the score that they came with, get no interval, and are marked as imported. A second
    import of a file replaces the first.

    Args:
        study: the study.
        path: a file or folder of that format.
        format: whose.
        language: of the explanations; by default what the file says, else `en`.
        sae: name of the SAE that they are of; by default the only one of their layer.
        layer: import only this one; what the file is of, where it does not say it.

    Raises:
        InputError: the file is malformed, the language is no tag, or an SAE must be named.
        CandidateError: the study's SAEs cannot be found.
        StudyConflictError: another process explains features of the SAE.
        StorageError: a table cannot be read or written.
    """
    language = None if language is None else language_tag(language)
    rows = _READERS[format](path)
    if not rows:
        raise InputError(f"{path} holds no explanations: is it a file of {format}?")
    workspace = Workspace(study, overwrite=False, progress=no_progress)
    saes = _saes(workspace)
    if sae is not None and sae not in saes:
        raise InputError(f"no SAE {sae!r} in this study; there are {', '.join(saes)}")
    if sae is not None and layer is None:
        layer = saes[sae].layer
    of_layer = [row for row in rows if layer is None or row["layer"] in (None, layer)]
    if not of_layer:
        known = ", ".join(map(str, sorted({row["layer"] for row in rows})))
        raise InputError(f"{path} has no explanations of layer {layer}: it has layers {known}")
    source = f"{format}:{_file_name(path)}"
    by_sae: dict[str, list[Row]] = {}
    for row in of_layer:
        name = sae or _only_sae(saes, layer if row["layer"] is None else row["layer"], path)
        _check_width(row, name, saes[name], path)
        by_sae.setdefault(name, []).append(row)
    replaced = 0
    added: dict[str, list[Row]] = {}
    for name, found in by_sae.items():
        number = layer if saes[name].layer is None else saes[name].layer
        if number is None:
            raise InputError(f"the layer of SAE {name} is not known: give it with --layer")
        common = {"sae": name, "layer": number, "source": source}
        added[name], gone = _write(workspace, name, found, common, language)
        replaced += gone
    return Imported(added, replaced, len(rows) - len(of_layer))


def _file_name(path: Path) -> str:
    """A name that tells files apart; of `explanations/`, that of the folder it lies in.

    Neuronpedia names the files of every source alike: they go by their source, too.
    """
    path = path.resolve()
    if path.name == "explanations":
        return path.parent.name
    if path.parent.name == "explanations":
        return f"{path.parent.parent.name}/{path.name}"
    return path.name


def _saes(workspace: Workspace) -> dict[str, _Sae]:
    """SAEs of the study, by name; what a ranking found of them goes before what they say."""
    found = {one.name: _Sae(one.layer, one.width) for one in workspace.candidates}
    for row in rows_of(workspace.study.rankings, RANKINGS):
        if row["layer"] is not None:
            found[row["sae"]] = _Sae(row["layer"], row["width"])
    return found


def _only_sae(saes: Mapping[str, _Sae], layer: int | None, path: Path) -> str:
    names = [name for name, one in saes.items() if layer in (None, one.layer)]
    if len(names) == 1:
        return names[0]
    if layer is None:
        raise InputError(f"{path} does not say its layer: name the SAE with --sae")
    if names:
        raise InputError(
            f"several SAEs read layer {layer}, which {path} explains: {', '.join(names)}; "
            "name one with --sae"
        )
    known = ", ".join(sorted({str(one.layer) for one in saes.values() if one.layer is not None}))
    raise InputError(
        f"no SAE of this study reads layer {layer}, which {path} explains: choose one of layers "
        f"{known} with --layer, or name the SAE with --sae"
    )


def _check_width(row: Row, name: str, sae: _Sae, path: Path) -> None:
    if sae.width is not None and row["feature"] >= sae.width:
        raise InputError(
            f"{path} explains feature {row['feature']}, SAE {name} has {sae.width:,}: it is "
            "another SAE's; name the right one with --sae"
        )


def _write(
    workspace: Workspace,
    sae: str,
    rows: Sequence[Row],
    common: Row,
    language: str | None,
) -> tuple[list[Row], int]:
    """Put rows into an SAE's table, beside what is there; also how many of them were replaced."""
    study = workspace.study
    path = study.explanations(sae)
    concepts = _concepts(study, sae)
    now = datetime.now(UTC).replace(microsecond=0)
    new = [
        _whole({**row, **common, "created_at": now}, language, concepts.get(row["feature"], []))
        for row in rows
    ]
    # Whoever explains holds the same, and would write over what comes in between.
    with held(study.contexts(sae), wait=False) as free:
        if not free:
            raise StudyConflictError(
                f"another process explains features of {sae} in {study.folder}: wait until it is "
                "done, and import again"
            )
        # The rows that are there keep the settings that made them; imported ones depend on none.
        settings = read_configuration(path)
        if settings is None:
            settings = workspace.explanations_settings(sae)
        known = rows_of(path, EXPLANATIONS)
        coming = {_identity(row) for row in new}
        texts = {_text(row) for row in new}
        kept = [
            row
            for row in known
            if _identity(row) not in coming
            # A score of a text that comes again still holds.
            or (row["judge_url"] and _text(row) in texts)
        ]
        write_table(path, table_from_rows([*kept, *new], EXPLANATIONS), EXPLANATIONS, settings)
    return new, len(known) - len(kept)


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a second import of a file replaces."""
    return row["explainer"], row["source"], row["language"]


def _text(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return *_identity(row), row["feature"], row["explanation"]


def _concepts(study: Study, sae: str) -> dict[int, list[str]]:
    """Concepts that features were chosen for, best first."""
    rows: dict[int, list[Row]] = {}
    for row in rows_of(study.features(sae), FEATURES):
        rows.setdefault(row["feature"], []).append(row)
    return {feature: chosen_for(of) for feature, of in rows.items()}


def _whole(row: Row, language: str | None, concepts: Iterable[str]) -> Row:
    """A row of the table, from the columns that the file carries."""
    whole: Row = dict.fromkeys(column.name for column in EXPLANATIONS.columns)
    counts = ("observations", "calls", "prompt_tokens", "completion_tokens")
    whole |= dict.fromkeys(counts, 0) | row
    whole.update(
        explainer=IMPORTED,
        status=IMPORTED,
        language=language or row.get("language") or _DEFAULT_LANGUAGE,
        tags=row.get("tags") or [],
        concepts=list(concepts) if row.get("concepts") is None else row["concepts"],
    )
    return whole
