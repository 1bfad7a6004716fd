"""How each module of an adapter begins, and that a subspace belongs to a model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from safesail.alignment._names import is_hub_name
from safesail.alignment._sites import Site
from safesail.alignment._subspace import LayerSubspace, Subspace
from safesail.errors import AlignmentError
from safesail.language_model.names import same_model

Uncovered = Literal["lora", "nearest", "none"]


class Plan(NamedTuple):
    """How one module begins.

    Attributes:
        site: the module.
        start: with its own stream's basis, the nearest one's, or none.
        layer: whose basis; None for `lora`.
        rank: of its factors.
    """

    site: Site
    start: Literal["subspace", "nearest", "lora"]
    layer: LayerSubspace | None
    rank: int


def check_fits(model: Any, subspace: Subspace, sites: Sequence[Site]) -> None:
    """That a subspace belongs to a model, and that each of its bases serves a module.

    Raises:
        AlignmentError: it does not.
    """
    if not subspace.layers:
        raise AlignmentError("the subspace has no layer: make one with `safesail align`")
    reference = str(getattr(model.config, "_name_or_path", "") or "")
    # A folder can have any name.
    if is_hub_name(reference) and not same_model(reference, subspace.model):
        raise AlignmentError(
            f"the subspace was made for {subspace.model!r}, the model is {reference!r}: make one "
            "with SAEs of this model"
        )
    width = sites[0].d_model
    for layer in subspace.layers:
        size = layer.basis.shape[0]
        if size != width:
            raise AlignmentError(
                f"the basis at {layer.hook_point} has {size} numbers per direction, the model's "
                f"stream {width}: its SAE is of another model"
            )
        if not any(_serves(layer, site) for site in sites if site.stream == layer.stream):
            raise AlignmentError(
                f"no module chosen reads or writes {layer.hook_point}: adapt others (--modules), "
                "or use an SAE at the residual stream of a block in between"
            )


def _serves(layer: LayerSubspace, site: Site) -> bool:
    return site.kind == "writer" or not layer.writers_only


def plan_module(site: Site, subspace: Subspace, rank: int, uncovered: Uncovered) -> Plan | None:
    """How a module begins; None where it gets no adapter.

    Raises:
        AlignmentError: a rank below 1.
    """
    if rank < 1:
        raise AlignmentError(f"a rank of {rank} makes no adapter: give at least 1")
    own = subspace.at(site.stream)
    if own is not None and _serves(own, site):
        return Plan(site, "subspace", own, min(rank, own.rank))
    fit = [layer for layer in subspace.layers if _serves(layer, site)]
    if uncovered == "nearest" and fit:
        nearest = min(fit, key=lambda layer: (abs(layer.stream - site.stream), layer.stream))
        return Plan(site, "nearest", nearest, min(rank, nearest.rank))
    return None if uncovered == "none" else Plan(site, "lora", None, rank)


def lora_configuration(plans: Sequence[Plan], rank: int) -> Any:
    """PEFT's configuration: scaling 1 at whatever rank, nothing but the modules planned."""
    other = {plan.site.module: plan.rank for plan in plans if plan.rank != rank}
    return import_peft().LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=other,
        alpha_pattern=other,
        target_modules=[plan.site.module for plan in plans],
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(plan.site.transposed for plan in plans),
    )


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep back what PEFT makes transformers say of PEFT's own code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def import_peft() -> Any:
    """PEFT.

    Raises:
        AlignmentError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise AlignmentError(
            "adapters need PEFT, which is not installed: run `pip install 'safesail[align]'`"
        ) from error
    return peft
