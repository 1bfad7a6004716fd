"""Start a study: propose what the user leaves out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from safesail.builtin import PREFIX
from safesail.errors import ConfigurationError
from safesail.study import (
    CONFIGURATION_FILE,
    CandidateSettings,
    ConceptSettings,
    Configuration,
    CorpusSettings,
    CorpusSource,
    ModelSettings,
    RankingSettings,
    Study,
)
from safesail.tables import write_bytes

# A small sample of general text (The Pile), as the field uses it for quick looks at features.
GENERAL_CORPUS = "NeelNanda/pile-10k"
_PROPOSED = 8
_LAB = "builtin:lab"
# As many as the ranking's sample: a demo should not keep anyone waiting.
_LAB_TOKENS = 200_000


@dataclass(frozen=True)
class StartedStudy:
    """A new study, and what its author should know of the proposals in it."""

    study: Study
    remarks: list[str]


def start_study(
    folder: Path,
    *,
    model: str,
    saes: Sequence[str],
    concepts: Sequence[str],
    corpus: Sequence[Path],
    text_column: str = "text",
    overwrite: bool = False,
) -> StartedStudy:
    """Write a commented `safesail.toml`.

    Args:
        folder: the study's folder; made where missing.
        model: folder (relative to the working directory), hub name, or `builtin:lab`.
        saes: candidates; none means a proposal from SAELens' directory, where it has any.
        concepts: files of contrast pairs; none means the starter set.
        corpus: files of documents; none means general text from the hub.
        text_column: column of the files that holds the text.
        overwrite: replace an existing configuration.

    Raises:
        ConfigurationError: there is a configuration already.
        StorageError: it cannot be written.
    """
    folder = folder.resolve()
    path = folder / CONFIGURATION_FILE
    if path.exists() and not overwrite:
        raise ConfigurationError(f"{path} exists: edit it, or add --overwrite to replace it")
    lab = model == _LAB
    remarks: list[str] = []
    candidates = [_relative(sae, folder) for sae in saes]
    if not candidates:
        candidates = [_LAB] if lab else _propose(model, remarks)
    sources = [
        CorpusSource(path=_relative(str(file), folder), text_column=text_column) for file in corpus
    ]
    if not sources:
        sources = [CorpusSource(path=_LAB) if lab else CorpusSource(hub=GENERAL_CORPUS)]
    configuration = Configuration(
        model=ModelSettings(name=_relative(model, folder)),
        candidates=CandidateSettings(saes=candidates),
        concepts=ConceptSettings(
            files=[_relative(file, folder) for file in concepts]
            or [_LAB if lab else "builtin:starter"]
        ),
        # The lab's corpus holds its concepts; elsewhere they are rare and must be brought.
        corpus=CorpusSettings(
            sources=sources,
            concept_texts=not lab,
            max_tokens=_LAB_TOKENS if lab else CorpusSettings.model_fields["max_tokens"].default,
        ),
        ranking=RankingSettings(),
    )
    write_bytes(path, configuration.to_toml().encode())
    return StartedStudy(Study(folder, configuration), remarks)


def _relative(reference: str, folder: Path) -> str:
    """A path of the working directory as seen from the study; other names as they are."""
    path = Path(reference).expanduser()
    if reference.startswith(PREFIX) or path.is_absolute():
        return reference
    matched = path.exists() or (has_magic(reference) and any(Path().glob(reference)))
    if not matched and not reference.startswith((".", "~")):
        return reference
    return Path(os.path.relpath(path.absolute(), folder)).as_posix()


def _propose(model: str, remarks: list[str]) -> list[str]:
    """Some SAEs of one published release, spread over its layers."""
    from safesail.sparse_autoencoder import directory

    entries = [entry for entry in directory(model) if entry.layer is not None]
    if not entries:
        remarks.append(
            f"SAELens' directory has no SAEs for model {model!r}: name some with --sae, or train "
            "some with `safesail train-saes`"
        )
        return []
    releases: dict[str, list] = {}
    for entry in entries:
        releases.setdefault(entry.release, []).append(entry)
    # Canonical releases hold one SAE per layer that their makers recommend; among equals the
    # residual stream first, which most of the literature reads.
    release = min(
        releases, key=lambda name: ("canonical" not in name, "res" not in name, len(name), name)
    )
    per_layer = {entry.layer: entry for entry in reversed(releases[release])}
    layers = sorted(per_layer)
    step = max(1, -(-len(layers) // _PROPOSED))
    # The first layer knows little but the token itself: it is left out where there are others.
    chosen = [per_layer[layer] for layer in layers[step::step] or layers]
    remarks.append(
        f"proposed {len(chosen)} of {len(entries)} published SAEs "
        f"({len(releases)} releases): see `safesail list-saes --model {model}`"
    )
    return [f"{release}:{entry.sae_id}" for entry in chosen]
