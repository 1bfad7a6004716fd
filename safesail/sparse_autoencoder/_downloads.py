"""How much of published SAEs is not on this machine yet, asked before anything is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safesail.sparse_autoencoder._candidates import Candidate
from safesail.sparse_autoencoder._formats import LAYOUTS, SAE_LENS, files_of


@dataclass(frozen=True)
class Downloads:
    """What must be fetched before some candidates can be loaded.

    Attributes:
        candidates: names of those that are not whole on this machine.
        size: bytes of their files that are missing; what the hub does not tell counts nothing.
        cache: folder they are fetched into.
    """

    candidates: tuple[str, ...]
    size: int
    cache: Path

    def __str__(self) -> str:
        many = len(self.candidates)
        size = f"{self.size / 1e9:.1f} GB" if self.size >= 1e8 else f"{self.size / 1e6:.1f} MB"
        return f"{many} SAE{'s' if many > 1 else ''} to download: {size}, into {self.cache}"


def pending_downloads(candidates: Iterable[Candidate]) -> Downloads | None:
    """What of the candidates is missing here; None where nothing is that the hub could give.

    The hub is asked once per repository. A repository that it does not answer for counts nothing:
    loading its SAEs will say why. Layouts that are refused are left out, for they are not fetched.

    Args:
        candidates: local ones are left out.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    missing: dict[str, dict[str, set[str]]] = {}
    for candidate in candidates:
        if candidate.release is None or candidate.sae_id is None:
            continue
        entry = candidate.entry
        layout = entry.loader if entry else SAE_LENS
        repository = entry.repository if entry else candidate.release
        if layout not in LAYOUTS or LAYOUTS[layout].refused:
            continue
        files = files_of(layout, entry.path if entry else candidate.sae_id)
        absent = {name for name in files if try_to_load_from_cache(repository, name) is None}
        if files[-1] in absent:
            missing.setdefault(repository, {})[candidate.name] = absent
    names: list[str] = []
    wanted: dict[tuple[str, str], int] = {}
    for repository, by_candidate in missing.items():
        sizes = _sizes(repository)
        for name, files_absent in by_candidate.items():
            there = files_absent & sizes.keys()
            if there:
                names.append(name)
            # Files that several SAEs share are fetched once.
            wanted |= {(repository, file): sizes[file] for file in there}
    if not names:
        return None
    return Downloads(tuple(names), sum(wanted.values()), Path(HF_HUB_CACHE))


def _sizes(repository: str) -> dict[str, int]:
    """Sizes of a repository's files in bytes; none where the hub does not answer."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(repository, files_metadata=True, timeout=20).siblings or []
    except Exception:  # huggingface_hub lets errors of its HTTP client through
        return {}
    return {file.rfilename: file.size or 0 for file in files}
