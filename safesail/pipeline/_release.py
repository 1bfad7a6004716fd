"""A release: explained SAEs, tables, concepts and card in one folder, which is a study itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.builtin import PREFIX
from safesail.errors import CandidateError, InputError
from safesail.explorer import corrections_file
from safesail.pipeline._corrected import corrections_of
from safesail.pipeline._export import sae_tables, study_card, table_files
from safesail.pipeline._release_reading import KIND, MANIFEST, digest_of, is_release
from safesail.pipeline._workspace import Approve, Workspace, no_progress
from safesail.study import CONFIGURATION_FILE, Configuration, Study
from safesail.tables.formats import (
    CARD,
    SaeTables,
    copy_tables,
    last_part,
    without_paths,
    without_secrets,
    write_file,
    written_folder,
)

if TYPE_CHECKING:
    from safesail.sparse_autoencoder import Candidate

_LIBRARIES = ("safesail", "sae-lens", "torch", "transformers", "pyarrow")
_SAE_FILES = ("cfg.json", "sae_weights.safetensors")
_OPTIONAL_SAE_FILES = ("sparsity.safetensors",)


@dataclass(frozen=True)
class WrittenRelease:
    """What a release holds.

    Attributes:
        folder: where it is.
        files: how many.
        bytes: their size together.
    """

    folder: Path
    files: int
    bytes: int


def write_release(
    study: Study,
    folder: Path,
    *,
    saes: Sequence[str] = (),
    licence: str | None = None,
    with_weights: bool = False,
    overwrite: bool = False,
    approve: Approve | None = None,
) -> WrittenRelease:
    """Write a release, whole or not at all.

    Local SAEs are copied, in SAELens' layout; published ones are named, and found again by name.
    Model, corpus and the judge's answers are left out; the card says which they were.

    Args:
        study: the study.
        folder: where.
        saes: names of SAEs; by default all that have explanations.
        licence: identifier for the card.
        with_weights: copy published SAEs too.
        overwrite: replace a release that lies there.
        approve: says whether published SAEs may be downloaded; None downloads unasked.

    Raises:
        InputError: an SAE has no explanations, a table is missing, or the folder is not empty.
        CandidateError: an SAE is gone, or cannot be loaded.
        StorageError: a table cannot be read, or the folder not written.
    """
    folder = folder.resolve()
    _check_target(study, folder, overwrite)
    chosen = _chosen(study, saes)
    names = tuple(one.sae for one in chosen)
    for one in chosen:
        _require_tables(study, one)
    workspace = Workspace(study, overwrite=False, progress=no_progress, approve=approve)
    candidates = _candidates(workspace, names)
    with written_folder(folder, is_release) as new:
        rows = copy_tables(table_files(study, names), new)
        places = {
            name: _place_sae(workspace, candidate, new, with_weights)
            for name, candidate in candidates.items()
        }
        concepts = _copy_concepts(study, new)
        settings = _portable(study, list(places.values()), concepts)
        write_file(new / CONFIGURATION_FILE, settings.to_toml())
        included = (
            *(f"SAE {name}: `{place}`" for name, place in places.items()),
            *(f"concepts: `{place}`" for place in concepts),
            *_copy_corrections(study, names, new),
            "settings: `safesail.toml`; digests and versions: `manifest.json`",
        )
        write_file(new / CARD, study_card(study, chosen, licence, rows, included=included))
        files = _digests(new)
        manifest = _manifest(study, places, licence, files)
        write_file(new / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return WrittenRelease(folder, len(files) + 1, sum(file["bytes"] for file in files.values()))


def _copy_corrections(study: Study, saes: Sequence[str], folder: Path) -> Iterator[str]:
    """Copy what people corrected in these SAEs; a line for the card, if they did."""
    found = corrections_of(study, saes)
    if found:
        lines = "".join(one.model_dump_json() + "\n" for one in found)
        write_file(corrections_file(Study(folder, study.configuration)), lines)
        yield f"{len(found)} corrections by people: `corrections.jsonl`"


def _check_target(study: Study, folder: Path, overwrite: bool) -> None:
    if study.folder.is_relative_to(folder):
        raise InputError(f"{folder} holds the study itself: give another folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not is_release(folder):
            raise InputError(f"{folder} holds other things: it is not replaced")
        if not overwrite:
            raise InputError(f"{folder} holds a release: add --overwrite to replace it")


def _chosen(study: Study, saes: Sequence[str]) -> list[SaeTables]:
    found = {one.sae: one for one in sae_tables(study)}
    unknown = [name for name in saes if name not in found]
    if unknown:
        raise InputError(
            f"no explanations of SAE {unknown[0]!r} in {study.folder}; there are some of "
            f"{', '.join(found)}"
        )
    return [found[name] for name in dict.fromkeys(saes or found)]


def _require_tables(study: Study, sae: SaeTables) -> None:
    """What explanations were made from; imported ones were made from nothing that is here."""
    if all(row["explainer"] == "imported" for row in sae.explanations):
        return
    contexts = study.contexts(sae.sae)
    for path, pattern, stage in (
        (study.folder, study.rankings.name, "rank-saes"),
        (study.folder / "features", f"{sae.sae}.parquet", "rank-saes"),
        (contexts, "part-*.parquet", "collect"),
    ):
        if not any(path.glob(pattern)):
            raise InputError(f"{path / pattern} is missing: run `safesail {stage}` again")


def _candidates(workspace: Workspace, names: Sequence[str]) -> dict[str, Candidate]:
    known = {candidate.name: candidate for candidate in workspace.candidates}
    for name in names:
        if name not in known:
            raise CandidateError(
                f"SAE {name} has explanations, but is not there any more: put its folder back, or "
                "name the others with --sae"
            )
    return {name: known[name] for name in names}


def _place_sae(workspace: Workspace, candidate: Candidate, folder: Path, with_weights: bool) -> str:
    """Copy an SAE where it has to be; returns how the release's settings name it."""
    from safesail.sparse_autoencoder import convert

    if candidate.folder is None and not with_weights:
        return candidate.source
    place = f"saes/{candidate.name}"
    source = candidate.folder
    if source is not None and all((source / name).is_file() for name in _SAE_FILES):
        for name in (*_SAE_FILES, *_OPTIONAL_SAE_FILES):
            if (source / name).is_file():
                (folder / place).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / place / name)
    else:
        workspace.ask_to_download([candidate])
        convert(candidate, folder / place)
    _remove_paths(folder / place / "cfg.json")
    return place


def _remove_paths(path: Path) -> None:
    """Rewrite an SAE's cfg.json where it holds paths of this machine."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CandidateError(f"{path.parent.name}: its cfg.json is not JSON: {error}") from error
    if without_paths(content) != content:
        write_file(path, json.dumps(without_paths(content), indent=1))


def _copy_concepts(study: Study, folder: Path) -> list[str]:
    """Copy the concepts' files; returns how the release's settings name them."""
    references = []
    for reference in study.configuration.concepts.files:
        if reference.startswith(PREFIX):
            references.append(reference)
            continue
        source = study.resolve(reference)
        place = f"concepts/{source.name}"
        if place in references:
            place = f"concepts/{len(references)}-{source.name}"
        try:
            write_file(folder / place, source.read_bytes())
        except FileNotFoundError:
            raise InputError(f"the concepts' file {source} is gone: put it back") from None
        references.append(place)
    return references


def _portable(study: Study, saes: list[str], concepts: list[str]) -> Configuration:
    """The study's settings without paths of this machine and without what can hold a key."""
    content: dict[str, Any] = study.configuration.model_dump()
    content["candidates"]["saes"] = saes
    content["concepts"]["files"] = concepts
    model = content["model"]["name"]
    local = not model.startswith(PREFIX) and study.resolve(model).exists()
    content["model"]["name"] = study.resolve(model).name if local else last_part(model)
    for source in content["corpus"]["sources"]:
        if source["path"] is not None and not source["path"].startswith(PREFIX):
            source["path"] = Path(source["path"]).name
    judge = content["judge"]
    for key in ("url", "fallback_url"):
        judge[key] = judge[key] and without_secrets(judge[key])
    judge["prices"] = None  # the file is not part of the release
    return Configuration.model_validate(content)


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": digest_of(path),
            "bytes": path.stat().st_size,
        }
        for path in files
    }


def _manifest(
    study: Study,
    places: Mapping[str, str],
    licence: str | None,
    files: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "kind": KIND,
        "study": study.folder.name,
        "licence": licence,
        "created_at": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "versions": {name: version(name) for name in _LIBRARIES},
        "saes": dict(places),
        "files": dict(files),
    }
