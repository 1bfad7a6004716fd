"""SAEs trained on a model whose weights TransformerLens had processed, read on the raw weights.

What each way of processing changes, and where, is TransformerLens' own account of
`HookedTransformer.from_pretrained`. Where it changes nothing that the SAE reads and rebuilds, it is
set aside; centring of what writes to the residual stream is done to each input; anything else is
refused, because the SAE would read activations that it was not trained on.
"""

from __future__ import annotations

import re
from typing import Any

from safesail.errors import CandidateError

# Loading options that leave activations as they are, up to numeric precision.
_HARMLESS = frozenset(
    {
        "device",
        "n_devices",
        "move_to_device",
        "dtype",
        "torch_dtype",
        "default_prepend_bos",
        "default_padding_side",
        "center_unembed",
        "first_n_layers",
        "use_attn_in",
        "use_attn_result",
        "use_hook_mlp_in",
        "use_split_qkv_input",
        "attn_implementation",
        "cache_dir",
        "device_map",
        "local_files_only",
        "low_cpu_mem_usage",
        "token",
        "trust_remote_code",
    }
)
_PROCESSING = frozenset(
    {
        "fold_ln",
        "center_writing_weights",
        "fold_value_biases",
        "refactor_factored_attn_matrices",
    }
)
# What blocks write to the residual stream, and the stream: the model function fixes these.
_WRITTEN = r"hook_resid_(?:pre|mid|post)|hook_mlp_out|hook_attn_out"
# Between norms and heads or neurons: a LayerNorm takes the mean away anyway.
_INSIDE = r"attn\.hook_z|mlp\.hook_(?:pre|post)|ln[12]\.hook_normalized"
# Output of a norm with its weight, which folding moves into the weights after it.
_AFTER_NORM = r"ln[12]\.hook_out|mlp\.hook_in|attn\.hook_in"
# Where each way of processing changes nothing.
_UNCHANGED = {
    "fold_ln": rf"{_WRITTEN}|{_INSIDE}",
    "fold_value_biases": rf"{_WRITTEN}|mlp\.hook_(?:pre|post|in)|ln[12]\.hook_(?:normalized|out)",
    "refactor_factored_attn_matrices": (
        rf"{_WRITTEN}|mlp\.hook_(?:pre|post|in)|ln[12]\.hook_(?:normalized|out)"
    ),
    "center_writing_weights": rf"{_INSIDE}|{_AFTER_NORM}",
}


def needs_centring(
    settings: dict[str, Any], hook_points: tuple[str, str], *, norms_centre: bool, source: str
) -> bool:
    """Whether the mean must be taken from each input.

    Args:
        settings: `model_from_pretrained_kwargs` of the SAE.
        hook_points: that it reads and that it rebuilds, TransformerLens' names.
        norms_centre: whether the model's norms subtract the mean (LayerNorm); TransformerLens
            centres no other models' weights.
        source: what the user calls the SAE.

    Raises:
        CandidateError: the model was loaded in a way that changes what the SAE reads or rebuilds,
            and that cannot be done to the activations.
    """
    asked = {name for name, value in settings.items() if value is not False and value is not None}
    unknown = sorted(asked - _HARMLESS - _PROCESSING)
    if unknown:
        listed = ", ".join(f"{name}={settings[name]!r}" for name in unknown)
        raise CandidateError(
            f"SAE {source} was trained on a model loaded with {listed}, which safesail does not "
            "apply: its activations would be others than it was trained on"
        )
    if not norms_centre:
        asked.discard("center_writing_weights")
    changed = {
        name: [point for point in dict.fromkeys(hook_points) if not _unchanged(name, point)]
        for name in sorted(asked & _PROCESSING)
    }
    reads, rebuilds = hook_points
    centred = changed.pop("center_writing_weights", [])
    if centred and reads == rebuilds and re.fullmatch(_WRITTEN, _site(reads)):
        centred, centre = [], True
    else:
        centre = False
    for name, points in {**changed, "center_writing_weights": centred}.items():
        if points:
            raise CandidateError(
                f"SAE {source} was trained on a model loaded with {name}, whose effect at "
                f"{' and '.join(points)} safesail cannot apply to activations"
            )
    return centre


def _unchanged(processing: str, hook_point: str) -> bool:
    return re.fullmatch(_UNCHANGED[processing], _site(hook_point)) is not None


def _site(hook_point: str) -> str:
    """A hook point without its block."""
    return re.sub(r"^blocks\.\d+\.", "", hook_point)
