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
from safesail.sparse_autoencoder._directory import directory

CONFIGURATION_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"


@dataclass(frozen=True)
class Candidate:
    """An SAE that could be chosen; nothing of it is loaded yet.

    Attributes:
        name: short, unique among the candidates, fit for file names and tables.
        source: absolute folder, or `release:sae_id`.
        release: SAELens release, or a repository on the Hugging Face hub; None for a folder.
        sae_id: id in the release; None for a folder.
        folder: None for a published SAE.
        layer: number of the block it reads in, where that is known before loading.
    """

    name: str
    source: str
    release: str | None = None
    sae_id: str | None = None
    folder: Path | None = None
    layer: int | None = None

    def fingerprint(self) -> str:
        """What changes when the files do; of a published SAE, its name."""
        if self.folder is None:
            return self.source
        paths = [self.folder / name for name in (CONFIGURATION_FILE, WEIGHTS_FILE)]
        return fingerprint_files(path for path in paths if path.is_file())


def block_number(hook_point: str | None) -> int | None:
    """Number of the block that a hook point or a Hugging Face module lies in, by its name."""
    match = re.search(r"\.(\d+)(\.|$)", hook_point or "")
    return int(match[1]) if match else None


def find_candidates(specifications: Sequence[str], folder: Path) -> list[Candidate]:
    """Resolve what a configuration lists, in its order, each SAE once.

    Args:
        specifications: folders saved by SAELens, `release:sae_id` of SAELens' directory, or
            `builtin:lab`. `*`, `?` and `[...]` match many folders (those with a cfg.json) or ids;
            `**` matches folders at any depth.
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
    configurations = sorted(base.glob(f"{pattern.rstrip('/')}/{CONFIGURATION_FILE}"))
    if not configurations:
        raise CandidateError(
            f"SAE {specification!r}: no folder with a {CONFIGURATION_FILE} matches it "
            f"below {base.resolve()}"
        )
    return [_local(path.parent.resolve()) for path in configurations]


def _local(path: Path) -> Candidate:
    return Candidate(name=path.name, source=str(path), folder=path, layer=_local_layer(path))


def _local_layer(path: Path) -> int | None:
    try:
        configuration = json.loads((path / CONFIGURATION_FILE).read_text(encoding="utf-8"))
        # SAELens 6 nests what it calls metadata; before, it lay beside the rest.
        place = configuration.get("metadata", configuration)
        return block_number(place.get("hook_name") or place.get("hf_hook_name"))
    except (OSError, ValueError, AttributeError, TypeError):
        return None  # loading will say what is wrong


def _published(release: str, pattern: str) -> Iterator[Candidate]:
    layers = {entry.sae_id: entry.layer for entry in directory() if entry.release == release}
    ids = list(layers)
    if not ids and "/" in release and pattern and not has_magic(pattern):
        # A repository on the hub, which SAELens' directory need not know.
        yield _hub(release, pattern, None)
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
        yield _hub(release, sae_id, layers[sae_id])


def _hub(release: str, sae_id: str, layer: int | None) -> Candidate:
    return Candidate(
        name=f"{release}-{sae_id}",
        source=f"{release}:{sae_id}",
        release=release,
        sae_id=sae_id,
        layer=layer,
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
        parts = candidate.folder.parts
        for depth in range(1, min(4, len(parts))):
            yield _slug("-".join(parts[-depth:]))
    else:
        yield _slug(candidate.name)
    yield from (f"{_slug(candidate.name)}-{number}" for number in count(2))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "sae"
