"""Find the SAEs that a configuration names: folders, patterns, SAELens releases."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import has_magic
from itertools import count
from pathlib import Path

from safesail.builtin import PREFIX, builtin_path
from safesail.errors import CandidateError
from safesail.fingerprint import fingerprint_files
from safesail.sparse_autoencoder._directory import DirectoryEntry, directory
from safesail.sparse_autoencoder._filters import SaeFilter
from safesail.sparse_autoencoder._formats import CONFIGURATION_FILE, LAYOUTS, is_sae
from safesail.sparse_autoencoder._names import (
    block_number,
    l0_of_name,
    layer_of_name,
    width_of_name,
)

# What an SAE may consist of: a change in any of these changes it.
_FILES = sorted(
    {name.removeprefix("{path}/") for layout in LAYOUTS.values() for name in layout.files}
)
_NAMING_PARTS = 3


@dataclass(frozen=True)
class Candidate:
    """An SAE that could be chosen; nothing of it is loaded yet.

    Attributes:
        name: short, unique among the candidates, fit for file names and tables.
        source: absolute folder or file, or `release:sae_id`.
        release: SAELens release, or a repository on the Hugging Face hub; None for a local one.
        sae_id: id in the release; None for a local one.
        folder: of a local one, or its file where its layout is one file; None if published.
        layer: number of the block it reads in, where that is known before loading.
        width: number of features, where that is known before loading.
        l0: mean number of active features that its makers state, where they do.
        entry: what SAELens' directory says of it; None if it is not listed there.
    """

    name: str
    source: str
    release: str | None = None
    sae_id: str | None = None
    folder: Path | None = None
    layer: int | None = None
    width: int | None = None
    l0: float | None = None
    entry: DirectoryEntry | None = None

    def fingerprint(self) -> str:
        """What changes when the files do; of a published SAE, its name."""
        if self.folder is None:
            return self.source
        paths = [self.folder / name for name in _FILES] if self.folder.is_dir() else [self.folder]
        return fingerprint_files(path for path in paths if path.is_file())

    def fits(self, wanted: SaeFilter) -> bool:
        """Whether it meets the conditions.

        What a candidate does not say before it is loaded counts for it, so that loading it can
        say what is wrong; but not what SAELens' directory, which lists it, does not state.
        """
        return wanted.admits(
            names=(self.name, self.source),
            layer=self.layer,
            width=self.width,
            l0=self.l0,
            unknown=self.entry is None,
        )


def find_candidates(specifications: Sequence[str], folder: Path) -> list[Candidate]:
    """Resolve what a configuration lists, in its order, each SAE once.

    Args:
        specifications: local SAEs in any layout of docs/saes.md, `release:sae_id` of SAELens'
            directory, or `builtin:lab`. `*`, `?` and `[...]` match many SAEs or ids; `**` matches
            folders at any depth.
        folder: base of relative paths.

    Raises:
        CandidateError: a specification matches nothing; close names are suggested.
    """
    found: dict[str, Candidate] = {}
    for specification in specifications:
        for candidate in _resolve(specification, folder):
            found.setdefault(candidate.source, candidate)
    return _with_names(list(found.values()))


def _resolve(specification: str, folder: Path) -> Iterator[Candidate]:
    if specification.startswith(PREFIX):
        shipped = builtin_path(specification.removeprefix(PREFIX), "saes")
        yield from _matches(shipped, "*", specification)
        return
    path = (folder / Path(specification).expanduser()).resolve()
    release, colon, sae_id = specification.partition(":")
    if path.exists():
        yield _local(path)
    elif colon and len(release) > 1:  # one letter is a drive
        yield from _published(release, sae_id)
    elif has_magic(specification):
        expanded = Path(specification).expanduser()
        if expanded.is_absolute():
            anchor = Path(expanded.anchor)
            yield from _matches(anchor, str(expanded.relative_to(anchor)), specification)
        else:
            yield from _matches(folder, specification, specification)
    else:
        raise CandidateError(
            f"SAE {specification!r}: there is no folder {path}; "
            "a published SAE is written `release:sae_id`"
        )


def _matches(base: Path, pattern: str, specification: str) -> list[Candidate]:
    paths = sorted(path for path in base.glob(pattern.rstrip("/")) if is_sae(path))
    if not paths:
        raise CandidateError(
            f"SAE {specification!r}: no folder or file with an SAE matches it below "
            f"{base.resolve()}"
        )
    return [_local(path.resolve()) for path in paths]


def _local(path: Path) -> Candidate:
    layer, width, l0 = _stated(path)
    # Where its own name does not say it, as published below others: layer_12/width_16k/...
    above = "/".join(path.parts[-_NAMING_PARTS:])
    return Candidate(
        name=path.name,
        source=str(path),
        folder=path,
        layer=layer_of_name(above) if layer is None else layer,
        width=width or width_of_name(above),
        l0=l0_of_name(above) if l0 is None else l0,
    )


def _stated(path: Path) -> tuple[int | None, int | None, float | None]:
    """Layer, width and L0 (k of a TopK SAE) that a SAELens folder states."""
    try:
        configuration = json.loads((path / CONFIGURATION_FILE).read_text(encoding="utf-8"))
        # SAELens 6 nests what it calls metadata; before, it lay beside the rest.
        place = configuration.get("metadata", configuration)
        layer = block_number(place.get("hook_name") or place.get("hf_hook_name"))
        return layer, configuration.get("d_sae"), configuration.get("k") or place.get("l0")
    except (OSError, ValueError, AttributeError, TypeError):
        return None, None, None  # loading will say what is wrong


def _published(release: str, pattern: str) -> Iterator[Candidate]:
    entries = {entry.sae_id: entry for entry in directory() if entry.release == release}
    ids = list(entries)
    if not ids and "/" in release and pattern and not has_magic(pattern):
        # A repository on the hub, which SAELens' directory need not know.
        yield Candidate(
            name=f"{release}-{pattern}",
            source=f"{release}:{pattern}",
            release=release,
            sae_id=pattern,
            layer=layer_of_name(pattern),
            width=width_of_name(pattern),
            l0=l0_of_name(pattern),
        )
        return
    if not ids:
        close = _close(release, {entry.release for entry in directory()})
        raise CandidateError(
            f"SAE `{release}:{pattern}`: SAELens knows no release {release!r}{close}; "
            "`safesail list-saes` lists them"
        )
    matching = [sae_id for sae_id in ids if sae_id == pattern or fnmatchcase(sae_id, pattern)]
    if not matching:
        raise CandidateError(
            f"SAE `{release}:{pattern}`: nothing in the release has that id{_close(pattern, ids)}"
        )
    for sae_id in matching:
        entry = entries[sae_id]
        yield Candidate(
            name=f"{release}-{sae_id}",
            source=f"{release}:{sae_id}",
            release=release,
            sae_id=sae_id,
            layer=entry.layer,
            width=entry.width,
            l0=entry.l0,
            entry=entry,
        )


def _close(name: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f" (close: {', '.join(close)})" if close else ""


def _with_names(candidates: list[Candidate]) -> list[Candidate]:
    """Unique slugs: the first of a name keeps it, later ones add the folders above theirs."""
    taken: set[str] = set()
    named = []
    for candidate in candidates:
        # Names become file names, which some systems compare without case.
        name = next(slug for slug in _slugs(candidate) if slug.casefold() not in taken)
        taken.add(name.casefold())
        named.append(replace(candidate, name=name))
    return named


def _slugs(candidate: Candidate) -> Iterator[str]:
    if candidate.folder is not None:
        # The ending of a file says nothing; what follows the dot in a folder's name may.
        path = candidate.folder
        parts = (path if path.is_dir() else path.with_suffix("")).parts
        for depth in range(1, min(4, len(parts))):
            yield _slug("-".join(parts[-depth:]))
    else:
        yield _slug(candidate.name)
    yield from (f"{_slug(candidate.name)}-{number}" for number in count(2))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "sae"
