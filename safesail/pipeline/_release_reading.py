"""Load a release: its digests verified, its SAEs and tables as a study's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safesail.errors import CandidateError, InputError
from safesail.pipeline._results import ResultTable, load_results
from safesail.study import Study

if TYPE_CHECKING:
    import pyarrow as pa

    from safesail.sparse_autoencoder import SparseAutoencoder

KIND = "safesail release, version 1"
"""What a manifest says that it is of."""

MANIFEST = "manifest.json"
"""Name of the file with every other file's digest."""

# Files of these are read by their place, so none may lie there that the manifest lacks.
_READ_BY_PLACE = ("concepts", "contexts", "explanations", "features", "saes")


@dataclass(frozen=True)
class Release:
    """A release, verified.

    Attributes:
        study: the folder as a study, to be read as any other.
        manifest: what `manifest.json` says: versions, SAEs, digests.
    """

    study: Study
    manifest: dict[str, Any]

    @property
    def saes(self) -> list[str]:
        """Names of the SAEs."""
        return list(self.manifest["saes"])

    def load_sae(self, name: str, device: str = "cpu") -> SparseAutoencoder:
        """Load an SAE; one that the release only names is fetched.

        Raises:
            CandidateError: there is no such SAE, or it cannot be loaded.
        """
        from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

        if name not in self.manifest["saes"]:
            raise CandidateError(
                f"no SAE {name!r} in {self.study.folder}; there are {', '.join(self.saes)}"
            )
        (candidate,) = find_candidates([self.manifest["saes"][name]], self.study.folder)
        return SparseAutoencoder.load(candidate, device=device)

    def table(self, name: ResultTable, sae: str | None = None) -> pa.Table:
        """A table, of all SAEs or of one.

        Raises:
            InputError: the release has none.
            StudyConflictError: SAEs' tables were made by different settings, and none is named.
        """
        return load_results(self.study, name, sae)


def load_release(folder: str | Path) -> Release:
    """Load a release after its digests were verified.

    Args:
        folder: of `write_release`.

    Raises:
        InputError: it is no release, or a file is missing, changed, or was added to the tables.
        ConfigurationError: its settings are of another version.
    """
    folder = Path(folder).resolve()
    manifest = _manifest(folder)
    for name, stated in manifest["files"].items():
        path = folder / _checked_name(folder, name)
        try:
            found = digest_of(path)
        except OSError as error:
            raise InputError(f"{path} is missing from the release: {error.strerror}") from None
        if not isinstance(stated, dict) or found != stated.get("sha256"):
            raise InputError(f"{path} is not the file that was released: get the release again")
    for place in _READ_BY_PLACE:
        for path in sorted((folder / place).rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in manifest["files"]:
                raise InputError(f"{path} was not part of the release: take it away")
    return Release(Study.open(folder), manifest)


def is_release(folder: Path) -> bool:
    """Whether a folder holds a release, verified or not."""
    try:
        _manifest(folder)
    except InputError:
        return False
    return True


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"no {MANIFEST} in {folder}: it is no release of safesail") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: get the release again") from None
    if (
        not isinstance(content, dict)
        or content.get("kind") != KIND
        or not all(isinstance(content.get(key), dict) for key in ("files", "saes"))
    ):
        raise InputError(f"{path} is not of a {KIND}")
    return content


def _checked_name(folder: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise InputError(f"{folder / MANIFEST} names {name!r}, which lies outside the release")
    return path
