"""The layouts that SAEs are published in: how a local copy is told by its files, what is refused.

A layout goes by the name of SAELens' loader for it; `safe_sail` is the one that SAELens lacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safesail.errors import CandidateError

SAE_LENS = "sae_lens"
SAFE_SAIL = "safe_sail"
CONFIGURATION_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
_CROSS_LAYER = (
    "is a layer of a cross-layer transcoder: its features write to many layers, which one "
    "reconstruction does not show"
)
_WEIGHTS_AND_BIASES = ("wandb-config.yaml", "wanb-config.yaml")  # the second as published


@dataclass(frozen=True)
class Layout:
    """One way in which SAEs are published.

    Attributes:
        files: what an SAE consists of, `{path}` being its folder or file in the repository; the
            last of them holds the weights.
        folder: files by which a local folder is told; none where an SAE is a single file.
        file: whether a local file is one.
        refused: why such SAEs cannot be ranked; None where they can.
        sized_by_name: SAELens takes d_in and width from names, so the weights decide.
    """

    files: tuple[str, ...]
    folder: tuple[str, ...] = ()
    file: Callable[[Path], bool] | None = None
    refused: str | None = None
    sized_by_name: bool = False


def _named(pattern: str) -> Callable[[Path], bool]:
    return lambda path: re.fullmatch(pattern, path.name) is not None


# In the order in which a folder is compared with them: cfg.json alone is SAELens'.
LAYOUTS: dict[str, Layout] = {
    "sparsify": Layout(
        ("{path}/cfg.json", "{path}/sae.safetensors"), ("sae.safetensors",), sized_by_name=True
    ),
    SAE_LENS: Layout(
        ("{path}/cfg.json", "{path}/sparsity.safetensors", "{path}/sae_weights.safetensors"),
        (CONFIGURATION_FILE,),
    ),
    "gemma_2_transcoder": Layout(("{path}/params.npz",), sized_by_name=True),
    "gemma_2": Layout(("{path}/params.npz",), ("params.npz",), sized_by_name=True),
    "gemma_3": Layout(("{path}/config.json", "{path}/params.safetensors"), ("params.safetensors",)),
    "llama_scope": Layout(
        ("{path}/hyperparams.json", "{path}/checkpoints/final.safetensors"),
        ("hyperparams.json", "checkpoints/final.safetensors"),
    ),
    "llama_scope_r1_distill": Layout(
        ("{path}/config.json", "{path}/sae_weights.safetensors"),
        ("config.json", "sae_weights.safetensors"),
    ),
    "dictionary_learning_1": Layout(("{path}/config.json", "{path}/ae.pt"), ("ae.pt",)),
    "temporal": Layout(
        ("{path}/conf.yaml", "{path}/latest_ckpt.safetensors"),
        ("conf.yaml", "latest_ckpt.safetensors"),
        refused="is a temporal SAE: its features depend on the tokens before",
    ),
    "qwen_scope": Layout(("{path}",), file=_named(r"layer\d+\.sae\.pt"), sized_by_name=True),
    "connor_rob_hook_z": Layout(
        ("{stem}_cfg.json", "{path}"),
        file=lambda path: path.with_name(path.name.split(".pt")[0] + "_cfg.json").is_file(),
    ),
    "goodfire": Layout(
        ("{path}",),
        file=_named(r"Llama-3\.[13]-\d+B-Instruct-SAE-l\d+\.pth?"),
        sized_by_name=True,
    ),
    "deepseek_r1": Layout(
        ("{path}",), file=_named(r"DeepSeek-R1-.*-SAE-l\d+\.pt"), sized_by_name=True
    ),
    "mntss_clt_layer_transcoder": Layout(
        ("config.yaml", "W_enc_{path}.safetensors", "W_dec_{path}.safetensors"),
        file=_named(r"W_(enc|dec)_\d+\.safetensors"),
        refused=_CROSS_LAYER,
    ),
    "mwhanna_transcoder": Layout(
        ("config.yaml", *_WEIGHTS_AND_BIASES, "{path}"),
        file=lambda path: (
            path.suffix == ".safetensors"
            and any(path.with_name(name).is_file() for name in _WEIGHTS_AND_BIASES)
        ),
    ),
    SAFE_SAIL: Layout(("{path}",), file=_named(r"ckpt_layer\d+\.pt")),
}


def files_of(layout: str, path: str) -> list[str]:
    """Files that an SAE consists of, as named in its repository; some may be absent there."""
    stem = path.split(".pt")[0]
    return [name.format(path=path, stem=stem) for name in LAYOUTS[layout].files]


def is_sae(path: Path) -> bool:
    """Whether a local path looks like an SAE, whole or damaged."""
    return _told(path) is not None


def layout_of(path: Path) -> str:
    """Layout of a local folder or file, told by its files.

    Raises:
        CandidateError: it is missing, or in no layout that is known; what was found is listed.
    """
    if not path.exists():
        raise CandidateError(f"SAE folder {path} does not exist")
    layout = _told(path)
    if layout is not None:
        return layout
    if path.is_file():
        raise CandidateError(
            f"{path} is not an SAE in a layout that is known by its name: a Safe-SAIL checkpoint "
            "is called ckpt_layer12.pt, or converted with `safesail convert-sae --format safe_sail`"
        )
    found = sorted(entry.name for entry in path.iterdir())
    listed = ", ".join(found[:6]) + (" ..." if len(found) > 6 else "") or "nothing"
    raise CandidateError(
        f"{path} is not an SAE: it holds {listed}; an SAE's folder has cfg.json, params.npz, ae.pt "
        "or other files by which docs/saes.md tells its layout"
    )


def check_readable(layout: str, path: str, source: str) -> None:
    """Refuse what cannot be ranked, before anything of it is fetched.

    Args:
        layout: as of `layout_of`.
        path: of the SAE, locally or in its repository.
        source: what the user calls it.

    Raises:
        CandidateError: the layout's SAEs cannot be ranked, or are unknown to this version.
    """
    if layout not in LAYOUTS:
        raise CandidateError(
            f"SAE {source} is in SAELens' layout {layout!r}, which this version of safesail does "
            "not know: convert it to a SAELens folder"
        )
    refused = LAYOUTS[layout].refused
    if layout == "gemma_3" and any("clt" in part for part in path.split("/")[-2:]):
        refused = _CROSS_LAYER
    if refused:
        raise CandidateError(f"SAE {source} {refused}: it cannot be ranked")


def _told(path: Path) -> str | None:
    if path.is_file():
        return next((n for n, layout in LAYOUTS.items() if layout.file and layout.file(path)), None)
    for name, layout in LAYOUTS.items():
        if layout.folder and all((path / file).is_file() for file in layout.folder):
            # Gemma Scope's transcoders differ from its SAEs in the name alone.
            transcoder = re.search(r"gemma-scope-[^/]*transcoders", path.as_posix())
            return "gemma_2_transcoder" if name == "gemma_2" and transcoder else name
    return None
