"""The subspace of a model's safety features, one orthonormal basis a layer, and how it is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.errors import InputError, StorageError
from safesail.tables import write_bytes

TENSORS_FILE = "subspace.safetensors"
DESCRIPTION_FILE = "subspace.json"
SUBSPACE_FOLDER = "subspace"
"""Folder of an adapter's subspace in its own."""
VERSION = 1


@dataclass(frozen=True)
class SubspaceFeature:
    """A feature whose decoder direction shaped a basis.

    Attributes:
        feature: its index in the SAE.
        contrast: value of the contrast by which it was chosen, signed: aligned minus unaligned.
        weight: weight of its direction in the reducer, not negative.
        explanation: what the study says of it; None where it says nothing.
        concepts: concepts that the study gives it to.
    """

    feature: int
    contrast: float
    weight: float
    explanation: str | None
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class LayerSubspace:
    """The subspace in one state of the residual stream.

    Attributes:
        stream: the state: k is what block k reads, n_layers what the last block wrote.
        hook_point: the SAE's site, by its TransformerLens name.
        sae: name of the SAE; "" where there is none (direct routes).
        basis: float32 [d_model, r], orthonormal columns, the strongest direction first.
        features: those whose directions the basis was made of, the strongest first; none where
            the route has no features.
        spectrum: singular values of the reducer's matrix, descending, also those cut off.
        writers_only: the site is one block's output and not the stream itself, so the basis serves
            modules that write to it alone.
    """

    stream: int
    hook_point: str
    sae: str
    basis: NDArray[np.float32]
    features: tuple[SubspaceFeature, ...]
    spectrum: NDArray[np.float32]
    writers_only: bool = False

    @property
    def rank(self) -> int:
        """Number of directions, r."""
        return int(self.basis.shape[1])


@dataclass(frozen=True)
class Subspace:
    """The subspaces of a model's layers, and how they came about.

    Attributes:
        model: name of the language model as the study has it.
        layers: ascending by stream, one per stream.
        contrast: by what features were chosen.
        reducer: how directions became a basis.
        route: `sae`, or the direct route or control that made the bases.
    """

    model: str
    layers: tuple[LayerSubspace, ...]
    contrast: str
    reducer: str
    route: str

    def __post_init__(self) -> None:
        streams = [layer.stream for layer in self.layers]
        if streams != sorted(set(streams)):
            raise ValueError(f"layers must ascend by stream, one per stream: {streams}")

    def at(self, stream: int) -> LayerSubspace | None:
        """The layer at a state of the residual stream; None where it has no basis."""
        return next((layer for layer in self.layers if layer.stream == stream), None)

    @property
    def fingerprint(self) -> str:
        """Digest of all that `save` keeps: 16 hex digits."""
        return hashlib.sha256(self._description(self._tensors()).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `subspace.safetensors` (bases, spectra) and `subspace.json` (the rest).

        Raises:
            StorageError: the disk is full or the folder not writable.
        """
        for name, content in self.files().items():
            write_bytes(folder / name, content)

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by name."""
        tensors = self._tensors()
        return {
            TENSORS_FILE: tensors,
            DESCRIPTION_FILE: self._description(tensors).encode(),
        }

    @classmethod
    def load(cls, folder: Path) -> Subspace:
        """Read what `save` wrote.

        Raises:
            InputError: the folder holds no subspace.
            StorageError: its files are damaged or do not belong together.
        """
        try:
            tensors = (folder / TENSORS_FILE).read_bytes()
            description = (folder / DESCRIPTION_FILE).read_bytes()
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} holds no subspace ({Path(error.filename).name} is missing): make one "
                "with `safesail align`"
            ) from error
        except OSError as error:
            raise StorageError(f"could not read {error.filename}: {error.strerror}") from error
        try:
            return cls._read(json.loads(description), tensors)
        # What a damaged file makes of itself may be anything; SafetensorError is an Exception.
        except Exception as error:
            raise StorageError(
                f"{folder} holds a damaged subspace ({error}): make it again with `safesail align`"
            ) from error

    def _tensors(self) -> bytes:
        from safetensors.numpy import save

        found = {}
        for layer in self.layers:
            for name in ("basis", "spectrum"):
                values = np.ascontiguousarray(getattr(layer, name), dtype=np.float32)
                found[f"{name}.{layer.stream}"] = values
        content: bytes = save(found)
        return content

    def _description(self, tensors: bytes) -> str:
        return json.dumps(
            {
                "version": VERSION,
                "model": self.model,
                "contrast": self.contrast,
                "reducer": self.reducer,
                "route": self.route,
                "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
                "layers": [
                    {
                        "stream": layer.stream,
                        "hook_point": layer.hook_point,
                        "sae": layer.sae,
                        "writers_only": layer.writers_only,
                        "features": [asdict(feature) for feature in layer.features],
                    }
                    for layer in self.layers
                ],
            },
            indent=1,
            ensure_ascii=False,
        )

    @classmethod
    def _read(cls, described: dict[str, Any], tensors: bytes) -> Subspace:
        from safetensors.numpy import load

        if described["version"] != VERSION:
            raise ValueError(f"version {described['version']}, known is {VERSION}")
        if hashlib.sha256(tensors).hexdigest() != described["tensors_sha256"]:
            raise ValueError(f"{TENSORS_FILE} is not the file that {DESCRIPTION_FILE} belongs to")
        values = load(tensors)
        return cls(
            model=described["model"],
            layers=tuple(
                LayerSubspace(
                    stream=one["stream"],
                    hook_point=one["hook_point"],
                    sae=one["sae"],
                    basis=values[f"basis.{one['stream']}"],
                    features=tuple(
                        SubspaceFeature(**{**feature, "concepts": tuple(feature["concepts"])})
                        for feature in one["features"]
                    ),
                    spectrum=values[f"spectrum.{one['stream']}"],
                    writers_only=one["writers_only"],
                )
                for one in described["layers"]
            ),
            contrast=described["contrast"],
            reducer=described["reducer"],
            route=described["route"],
        )
