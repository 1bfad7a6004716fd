"""Read local copies with SAELens' own loaders, which know the hub alone."""

from __future__ import annotations

import re
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from safesail.errors import CandidateError

# SAELens takes model and hook point from the names of repositories: a local copy must show them.
_REPOSITORIES = {
    "gemma_2": (r"gemma-scope-(?:2b|9b|27b)-(?:pt|it)-(?:res|mlp|att)", "google/"),
    "gemma_2_transcoder": (r"gemma-scope-(?:2b|9b|27b)-(?:pt|it)-transcoders", "google/"),
    "gemma_3": (r"gemma-scope-2-(?:270m|1b|4b|12b|27b)-(?:pt|it)", "google/"),
    "qwen_scope": (r"SAE-Res-[^/]+?-W\d+K-L0_\d+", "Qwen/"),
    "mwhanna_transcoder": (r"qwen3-[\d.]+b-transcoders(?:-lowl0)?", "mwhanna/"),
}
# Of what lies above an SAE's folder, these parts say its site, layer and width.
_PARTS = {"gemma_2": 3, "gemma_2_transcoder": 3, "gemma_3": 2}


def read_local(
    path: Path, layout: str, device: str, overrides: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights, as SAELens' loader of a layout gives them.

    Args:
        path: local folder, or file where the layout is one file.
        layout: SAELens' name of it.
        device: where the tensors go.
        overrides: over the configuration.

    Raises:
        CandidateError: SAELens takes what is not in the files from names that the path lacks.
    """
    loaders = _loaders_from(path)
    folder = "/".join(path.parts[-_PARTS.get(layout, 1) :])
    repository = _repository(path, layout)
    loader = loaders.NAMED_PRETRAINED_SAE_LOADERS[layout]
    configuration, weights, _ = loader(repository, folder, device, False, overrides)
    return configuration, weights


def _repository(path: Path, layout: str) -> str:
    if layout == "goodfire":
        return f"Goodfire/{path.stem}"
    if layout not in _REPOSITORIES:
        return path.parent.name
    pattern, owner = _REPOSITORIES[layout]
    match = re.search(pattern, path.as_posix())
    stated_inside = layout == "gemma_3" and (path / "config.json").is_file()
    stated_inside |= layout == "mwhanna_transcoder" and path.with_name("config.yaml").is_file()
    if match is None and not stated_inside:
        raise CandidateError(
            f"SAE {path} does not say which model and hook point it is of: keep it in folders "
            f"named as published ({pattern.replace('(?:', '(')}/...)"
        )
    return owner + match[0] if match else path.parent.name


def _loaders_from(path: Path) -> ModuleType:
    """A copy of SAELens' module of loaders that finds one SAE's files here instead of on the hub.

    The module that SAELens itself uses is left as it is.
    """
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors import safe_open

    base = path if path.is_dir() else path.parent

    def find(repo_id: str, filename: str, *, subfolder: str = "", **_: Any) -> str:
        name = f"{subfolder}/{filename}" if subfolder else filename
        # What lies above the SAE in its repository is not part of a local path.
        for start in range(name.count("/") + 1):
            file = base.joinpath(*name.split("/")[start:])
            if file.is_file():
                return str(file)
        raise EntryNotFoundError(f"{base} lacks {name.rsplit('/', 1)[-1]}")

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(find(repo_id, filename), framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    spec = find_spec("sae_lens.loading.pretrained_sae_loaders")
    assert spec is not None  # part of a dependency
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(hf_hub_download=find, get_safetensors_tensor_shapes=shapes)
    return module
