"""What one pass is to collect, on disk: so that it can be resumed, shared out and put together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.errors import StorageError
from safesail.pipeline._workspace import Tell, Workspace, no_progress, tell_nothing
from safesail.study import Study
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from safesail.contexts import Pass

_FILE = "plan.json"
# At the end of the name of a folder that is being deleted.
_FORGOTTEN = ".forgotten"


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
        dtype: precision that the model runs in, where its setting is `auto` too.
    """

    saes: dict[str, PlannedSae]
    chunk_characters: int
    dtype: str

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
            return cls(saes, found["chunk_characters"], found["dtype"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{folder / _FILE} is damaged or missing: copy it there from where the work was "
                "begun, or repeat the command that began it, which writes it, or delete the folder"
            ) from error

    def passing(self, workspace: Workspace) -> Pass:
        """The pass that carries it out, model and SAEs loaded; it can be made elsewhere too.

        Raises:
            SafesailError: they cannot be loaded.
        """
        from safesail.contexts import Pass, SketchSettings, Target

        targets = [
            Target(workspace.load_sae(name), tuple(sae.features), sae.sink_threshold)
            for name, sae in self.saes.items()
        ]
        return Pass(
            workspace.model,
            targets,
            SketchSettings.of(workspace.settings.collection),
            elsewhere=partial(_elsewhere, self, workspace.study),
        )

    def is_current(self, workspace: Workspace) -> bool:
        """Whether the study's settings are still those it was made with."""
        return self.chunk_characters == workspace.settings.collection.chunk_characters and all(
            sae.settings == workspace.contexts_settings(name) for name, sae in self.saes.items()
        )

    def _json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def _elsewhere(plan: Plan, study: Study) -> Pass:
    """The pass in a process that was given one GPU, which is the first that it sees."""
    settings = study.configuration
    if settings.model.device.startswith("cuda:"):
        model = settings.model.model_copy(update={"device": "cuda"})
        settings = settings.model_copy(update={"model": model})
    return plan.passing(Workspace(Study(study.folder, settings), False, no_progress))


def plans(
    workspace: Workspace, tell: Tell = tell_nothing, *, beside: Container[str] = ()
) -> Iterator[tuple[Path, Plan]]:
    """Folders with work that was begun, and their plans; where shards lack theirs, that is told.

    Those with digests in `beside` are passed over.

    Nothing but what `forget` began to delete is deleted: another job may be about to write its
    plan, and work that was copied without it can be given it.
    """
    for folder in sorted(workspace.study.collection.glob("*/")):
        if folder.name.endswith(_FORGOTTEN):
            _delete(folder)
            continue
        if folder.name in beside:
            continue
        try:
            plan = Plan.read(folder)
        except StorageError as error:
            if any(folder.glob("*.work")):
                tell(f"not used: {error}")
            continue
        yield folder, plan


def forget(folder: Path) -> None:
    """Delete work that is in the tables: a part of it is never taken for work under way.

    Raises:
        StorageError: the folder cannot be renamed.
    """
    forgotten = folder.with_name(f"{folder.name}{_FORGOTTEN}")
    shutil.rmtree(forgotten, ignore_errors=True)
    try:
        folder.rename(forgotten)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot delete {folder}: {error.strerror or error}") from error
    _delete(forgotten)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others may be under way beside it
        folder.parent.rmdir()
