"""What one pass is to collect, on disk: so that it can be resumed, shared out and put together."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import StorageError
from safesail.pipeline._workspace import Workspace
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from safesail.contexts import Pass

_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedSae:
    """One SAE of a plan.

    Attributes:
        features: indices of the features to be observed, ascending.
        sink_threshold: hidden norm above which a token is an attention sink, as in the ranking.
        settings: what its contexts depend on.
    """

    features: list[int]
    sink_threshold: float
    settings: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What one pass is to collect: all that decides its result.

    Attributes:
        saes: by name; they read the corpus alike.
        chunk_characters: size of the chunks that work is counted in.
    """

    saes: dict[str, PlannedSae]
    chunk_characters: int

    @property
    def digest(self) -> str:
        """Tells plans apart."""
        return hashlib.blake2b(self._json().encode(), digest_size=8).hexdigest()

    def folder(self, workspace: Workspace) -> Path:
        """Where its work is kept while it lasts."""
        return workspace.study.collection / self.digest

    def write(self, workspace: Workspace) -> Path:
        """Write it down; returns its folder.

        Raises:
            StorageError: the disk is full or the folder not writable.
        """
        folder = self.folder(workspace)
        write_bytes(folder / _FILE, self._json().encode())
        return folder

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read what `write` wrote.

        Raises:
            StorageError: there is no plan in the folder, or a damaged one.
        """
        try:
            found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            saes = {name: PlannedSae(**sae) for name, sae in found["saes"].items()}
            return cls(saes, found["chunk_characters"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{folder / _FILE} is damaged or missing: delete the folder and collect again"
            ) from error

    def passing(self, workspace: Workspace) -> Pass:
        """The pass that carries it out, model and SAEs loaded.

        Raises:
            SafesailError: they cannot be loaded.
        """
        from safesail.contexts import Pass, SketchSettings, Target

        targets = [
            Target(workspace.load_sae(name), tuple(sae.features), sae.sink_threshold)
            for name, sae in self.saes.items()
        ]
        return Pass(workspace.model, targets, SketchSettings.of(workspace.settings.collection))

    def is_current(self, workspace: Workspace) -> bool:
        """Whether the study's settings are still those it was made with."""
        return self.chunk_characters == workspace.settings.collection.chunk_characters and all(
            sae.settings == workspace.contexts_settings(name) for name, sae in self.saes.items()
        )

    def _json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def plans(workspace: Workspace) -> Iterator[tuple[Path, Plan]]:
    """Folders with work that was begun, and their plans; damaged ones are deleted."""
    for folder in sorted(workspace.study.collection.glob("*/")):
        try:
            yield folder, Plan.read(folder)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
