"""What a saved adapter of PEFT holds, whoever made it: its factors, and what goes beyond them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from safesail.alignment._plan import import_peft
from safesail.errors import AlignmentError

_PREFIX = "base_model.model."
_WEIGHTS = "adapter_model.safetensors"
_FIRST, _SECOND = ".lora_A.weight", ".lora_B.weight"
_EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")

# Values of PEFT's `init_lora_weights` that leave the base's weights as they are. Of any other it is
# not known that they do.
_BASE_KEPT = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_CONVERTIBLE = ("pissa", "corda", "olora", "lora_ga")
# PEFT changes the base when such an adapter is loaded too, but not as it did when it was made: from
# random numbers, or not at all.
_UNREPEATABLE = ("pissa_niter", "lora_ga")
_OTHER_KINDS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "Arrow",
    "alora_invocation_tokens": "aLoRA",
    "layer_replication": "layers of the base repeated",
}
"""Settings that make a LoRA adapter something else than B A added to weights, for every token."""


class Factors(NamedTuple):
    """What an adapter adds to a weight: scaling · B A.

    Attributes:
        a: [r, d_in].
        b: [d_out, r].
        scaling: a number.
    """

    a: Tensor
    b: Tensor
    scaling: float


class SavedLora(NamedTuple):
    """What a plain LoRA adapter changes.

    Attributes:
        factors: by the module's path in the base model.
        others: what else it changes: embeddings with factors by their path; biases, trained tokens
            and modules that are saved whole by the name of the parameter.
    """

    factors: dict[str, Factors]
    others: tuple[str, ...]


def read_lora(folder: Path) -> SavedLora:
    """A plain LoRA adapter, from its files alone.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors, as PEFT saves them.

    Raises:
        AlignmentError: no such folder, an adapter of another kind than plain LoRA, one whose begin
            changed the base's weights, or damaged.
    """
    config = read_config(folder)
    _check_plain(config, folder)
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / _WEIGHTS)
    except Exception as error:  # safetensors raises classes of many kinds
        raise AlignmentError(f"cannot read adapter {folder}: {reason(error)}") from error
    first, second = (
        {name.removesuffix(end): value for name, value in tensors.items() if name.endswith(end)}
        for end in (_FIRST, _SECOND)
    )
    found = {}
    for name in sorted({*first, *second}):
        module, a, b = name.removeprefix(_PREFIX), first.get(name), second.get(name)
        if a is None or b is None or b.shape[1] != a.shape[0]:
            raise AlignmentError(f"adapter {folder} is damaged: no pair of A and B of {module}")
        found[module] = Factors(a, b, _scaling(config, module, a.shape[0], get_pattern_key))
    if not found:
        raise AlignmentError(f"adapter {folder} changes no linear module")
    others = {_other(name) for name in tensors if not name.endswith((_FIRST, _SECOND))}
    return SavedLora(found, tuple(sorted(others)))


def read_config(folder: Path) -> Any:
    """PEFT's configuration of an adapter whose weights are there too.

    Raises:
        AlignmentError: PEFT is missing, the folder is no adapter of PEFT with weights in
            safetensors, or its configuration is damaged.
    """
    peft = import_peft()
    # PEFT would look for what is absent on the hub, or unpickle weights.
    if not (folder / "adapter_config.json").is_file() or not (folder / _WEIGHTS).is_file():
        raise AlignmentError(
            f"{folder} is no adapter of PEFT: it lacks adapter_config.json or {_WEIGHTS}"
        )
    try:
        return peft.PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # PEFT raises classes of many kinds
        raise AlignmentError(f"cannot read adapter {folder}: {reason(error)}") from error


def check_repeatable(config: Any, folder: Path) -> None:
    """That PEFT, when it loads an adapter, gives it the base that it was trained on.

    Raises:
        AlignmentError: it does not.
    """
    begin = getattr(config, "init_lora_weights", None)
    if isinstance(begin, str) and begin.lower().startswith(_UNREPEATABLE):
        raise AlignmentError(
            f"{folder} began with {begin!r}, which changed the base's weights in a way that "
            f"loading does not repeat: {_remedy(begin)}"
        )


def module_of(parameter: str) -> str:
    """Path in the base of the module that a parameter of an adapter belongs to."""
    return parameter.removeprefix(_PREFIX).partition(".lora_")[0]


def reason(error: Exception) -> str:
    """What a library says of an error, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text[:300] or type(error).__name__


def _check_plain(config: Any, folder: Path) -> None:
    kind = str(config.peft_type).rpartition(".")[2]
    others = [name for key, name in _OTHER_KINDS.items() if getattr(config, key, None)]
    if kind != "LORA" or others:
        raise AlignmentError(
            f"{folder} is no plain LoRA adapter ({(others or [kind])[0]}): it is not a product B A"
        )
    begin = config.init_lora_weights
    plain = begin.lower() if isinstance(begin, str) else begin
    if plain not in _BASE_KEPT:
        raise AlignmentError(
            f"{folder} began with {begin!r}, which changes the base's weights too, so what it "
            f"changes is not its B A: {_remedy(begin)}"
        )


def _remedy(begin: str) -> str:
    if begin.lower().startswith(_CONVERTIBLE):
        return (
            "save it as plain LoRA, with `path_initial_model_for_weight_conversion` of PEFT's "
            "`save_pretrained`"
        )
    return "PEFT does not convert it to plain LoRA, so train one that leaves the base as it is"


def _scaling(config: Any, module: str, rank: int, get_pattern_key: Any) -> float:
    key = get_pattern_key(config.alpha_pattern.keys(), module)
    alpha = config.alpha_pattern.get(key, config.lora_alpha)
    return float(alpha / (rank**0.5 if config.use_rslora else rank))


def _other(name: str) -> str:
    for end in _EMBEDDING:
        name = name.removesuffix(end)
    return name.removeprefix(_PREFIX)
