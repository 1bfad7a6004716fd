"""Where an adapter comes from: each feature that shaped it, and what it was made on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safesail.alignment._subspace import SubspaceFeature
from safesail.errors import AlignmentError, StorageError
from safesail.tables import write_bytes

if TYPE_CHECKING:
    from safesail.alignment._subspace import Subspace

PROVENANCE_FILE = "safesail_provenance.json"
VERSION = 1


@dataclass(frozen=True)
class LayerRecord:
    """A basis and the features that it was made of.

    Attributes:
        stream: state of the residual stream; see `LayerSubspace`.
        hook_point: the SAE's site.
        sae: name of the SAE; "" where there is none.
        rank: directions of the basis.
        writers_only: serves modules that write alone.
        features: with their explanations, the strongest first.
    """

    stream: int
    hook_point: str
    sae: str
    rank: int
    writers_only: bool
    features: tuple[SubspaceFeature, ...]


@dataclass(frozen=True)
class ModuleRecord:
    """How a module's factors began.

    Attributes:
        module: its path in the base model.
        block: number of its block.
        kind: `reader` or `writer`.
        rank: of its factors.
        start: `subspace` (its own stream's basis), `nearest` (another stream's) or `lora` (PEFT's
            default).
        stream: whose basis it began with; None for `lora`.
        fidelity: mean squared cosine between basis and what the module's factor reads or writes
            at the stream: 1, but where a norm's gains are too small to divide by. None for `lora`.
        frozen: the factor that is not trained; None where both are.
        parameters: of both factors.
    """

    module: str
    block: int
    kind: Literal["reader", "writer"]
    rank: int
    start: Literal["subspace", "nearest", "lora"]
    stream: int | None
    fidelity: float | None
    frozen: Literal["lora_A", "lora_B"] | None
    parameters: int


@dataclass(frozen=True)
class Provenance:
    """What shaped an adapter.

    Attributes:
        model: name of the language model.
        route: how the subspace came about; `lora` where there is none.
        contrast: by what features were chosen.
        reducer: how directions became bases.
        subspace: fingerprint of the subspace; None where there is none.
        layers: the bases with their features.
        modules: every module that the adapter changes.
        blocks: number of the model's blocks.
        options: those of `make_adapter`.
        parameters: of the adapter.
        trainable: those of them that are trained.
        base_checksum: SHA-256 of the base's weights.
        base_dtype: their precision.
        versions: of the libraries.
        training: how it was trained; None where it was not.
        format: version of this file.
    """

    model: str
    route: str
    contrast: str
    reducer: str
    subspace: str | None
    layers: tuple[LayerRecord, ...]
    modules: tuple[ModuleRecord, ...]
    blocks: int
    options: dict[str, Any]
    parameters: int
    trainable: int
    base_checksum: str
    base_dtype: str
    versions: dict[str, str] = field(default_factory=lambda: library_versions())
    training: dict[str, Any] | None = None
    format: int = VERSION

    @property
    def covered(self) -> tuple[int, ...]:
        """Blocks of which every adapted module began with its own stream's basis."""
        return tuple(
            block
            for block in range(self.blocks)
            if (mine := [one for one in self.modules if one.block == block])
            and all(one.start == "subspace" for one in mine)
        )

    @property
    def uncovered(self) -> tuple[int, ...]:
        """The other blocks: some module of theirs began otherwise or has no adapter."""
        return tuple(sorted(set(range(self.blocks)) - set(self.covered)))

    def features_of(self, module: str) -> tuple[SubspaceFeature, ...]:
        """Features whose directions a module began with; none for plain LoRA.

        Raises:
            KeyError: the adapter does not change that module.
        """
        record = {one.module: one for one in self.modules}[module]
        return next((one.features for one in self.layers if one.stream == record.stream), ())

    def write(self, folder: Path) -> None:
        """Write `safesail_provenance.json`.

        Raises:
            StorageError: the disk is full or the folder not writable.
        """
        content = {
            **asdict(self),
            "covered_blocks": self.covered,
            "uncovered_blocks": self.uncovered,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_bytes(folder / PROVENANCE_FILE, text.encode())

    @classmethod
    def read(cls, folder: Path) -> Provenance:
        """Read what `write` wrote.

        Raises:
            AlignmentError: the folder is no adapter that safesail made.
            StorageError: the file is damaged.
        """
        from pydantic import TypeAdapter

        path = folder / PROVENANCE_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content = {k: v for k, v in content.items() if not k.endswith("covered_blocks")}
            return TypeAdapter(cls).validate_python(content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AlignmentError(
                f"{folder} is no adapter made by safesail: it has no {PROVENANCE_FILE}; load "
                "others with peft.PeftModel.from_pretrained"
            ) from error
        except (OSError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise StorageError(f"cannot read {path}: {reason}; make the adapter again") from error


def layer_records(subspace: Subspace) -> tuple[LayerRecord, ...]:
    """What an adapter's file keeps of a subspace."""
    return tuple(
        LayerRecord(
            layer.stream,
            layer.hook_point,
            layer.sae,
            int(layer.basis.shape[1]),
            layer.writers_only,
            layer.features,
        )
        for layer in subspace.layers
    )


def library_versions() -> dict[str, str]:
    """Versions of what makes and trains adapters."""
    return {name: version(name) for name in ("safesail", "peft", "torch", "transformers")}


def base_checksum(model: Any) -> str:
    """SHA-256 of all weights of a model but those of adapters, the same with adapters and without.

    Args:
        model: of transformers, perhaps within a PeftModel.
    """
    import torch

    digest = hashlib.sha256()
    named: Mapping[str, Any] = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): value
        for name, value in model.named_parameters()
        if ".lora_" not in name
    }
    for name in sorted(named):
        value = named[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def precision_of(model: Any) -> str:
    """Precision of a model's first weight."""
    return str(next(model.parameters()).dtype).removeprefix("torch.")
