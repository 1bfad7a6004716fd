"""SAELens' directory of published SAEs, read without importing SAELens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from safesail.language_model.names import same_model
from safesail.sparse_autoencoder._filters import SaeFilter
from safesail.sparse_autoencoder._names import l0_of_name, layer_of_name, width_of_name

_SITE = re.compile(
    r"blocks\.(\d+)\.(?:attn\.)?(hook_(?:resid_(?:pre|mid|post)|mlp_out|attn_out|z))"
)
# What the releases' names say about where their SAEs read, for ids that name a layer only.
_SITES_BY_RELEASE = (
    (re.compile(r"transcoder|-clt-"), None),
    (re.compile(r"-res(-|$)|lxr|r1_distill|qwen-scope|andyrdt|goodfire"), "hook_resid_post"),
    (re.compile(r"-mlp(-|$)|lxm"), "hook_mlp_out"),
    (re.compile(r"gemma-scope.*-att(-|$)"), "attn.hook_z"),
    (re.compile(r"lxa"), "hook_attn_out"),
)


@dataclass(frozen=True)
class DirectoryEntry:
    """A published SAE.

    Attributes:
        release: SAELens' name of the release.
        sae_id: its id in the release; `release:sae_id` names it to safesail.
        repository: on the Hugging Face hub.
        path: its folder or file in the repository.
        loader: SAELens' name of the layout that it is published in.
        model: the model it was trained on.
        hook_point: what it reads, where its name tells; None also for transcoders.
        layer: number of the block it reads in, where its name tells.
        width: number of features, where its name tells.
        l0: mean number of active features that its makers state.
        neuronpedia_id: on neuronpedia.org.
    """

    release: str
    sae_id: str
    repository: str
    path: str
    loader: str
    model: str
    hook_point: str | None
    layer: int | None
    width: int | None
    l0: float | None
    neuronpedia_id: str | None

    def fits(self, wanted: SaeFilter) -> bool:
        """Whether it meets the conditions; what is not stated meets none."""
        return wanted.admits(
            names=(f"{self.release}:{self.sae_id}", self.sae_id),
            layer=self.layer,
            width=self.width,
            l0=self.l0,
            unknown=False,
        )


def directory(model: str | None = None) -> list[DirectoryEntry]:
    """Published SAEs that SAELens can load.

    Args:
        model: only those of this model; organisation, case and older names of models are set
            aside (`google/gemma-2-2b` finds those of `gemma-2-2b`).
    """
    entries = _entries()
    if model is None:
        return list(entries)
    fitting = {name for name in {entry.model for entry in entries} if same_model(name, model)}
    return [entry for entry in entries if entry.model in fitting]


@cache
def _entries() -> tuple[DirectoryEntry, ...]:
    package = find_spec("sae_lens")
    assert package is not None  # a dependency
    assert package.origin is not None
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with Path(package.origin).with_name("pretrained_saes.yaml").open(encoding="utf-8") as file:
        releases = yaml.load(file, Loader=loader)
    return tuple(
        _entry(release, content, sae)
        for release, content in releases.items()
        for sae in content["saes"]
    )


def _entry(release: str, content: dict[str, Any], sae: dict[str, Any]) -> DirectoryEntry:
    hook_point, layer = _site(release, sae["id"])
    path = str(sae["path"])
    names = (sae["id"], path, release, content["repo_id"])
    stated = sae.get("l0")
    return DirectoryEntry(
        release=release,
        sae_id=sae["id"],
        repository=content["repo_id"],
        path=path,
        loader=content.get("conversion_func") or "sae_lens",
        model=content["model"],
        hook_point=hook_point,
        layer=layer,
        width=next(filter(None, map(width_of_name, names)), None),
        l0=l0_of_name(path) if stated is None else stated,
        neuronpedia_id=sae.get("neuronpedia"),
    )


def _site(release: str, sae_id: str) -> tuple[str | None, int | None]:
    named = _SITE.search(sae_id)
    if named:
        hook = "attn.hook_z" if named[2] == "hook_z" else named[2]
        return f"blocks.{named[1]}.{hook}", int(named[1])
    layer = layer_of_name(sae_id)
    if layer is None:
        return None, None
    site = next((site for pattern, site in _SITES_BY_RELEASE if pattern.search(release)), None)
    return (f"blocks.{layer}.{site}" if site else None), layer
