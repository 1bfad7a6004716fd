"""A LoRA adapter that begins in the subspace, made, saved and loaded with PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from safesail.alignment._carry import Carried, carry
from safesail.alignment._freeze import freeze
from safesail.alignment._plan import (
    Plan,
    Uncovered,
    check_fits,
    import_peft,
    lora_configuration,
    plan_module,
    quiet_peft,
)
from safesail.alignment._provenance import (
    ModuleRecord,
    Provenance,
    base_checksum,
    layer_records,
    precision_of,
)
from safesail.alignment._saving import remember
from safesail.alignment._sites import ATTENTION, Site, find_sites, norm_gain
from safesail.alignment._subspace import Subspace

if TYPE_CHECKING:
    from peft import PeftModel

USUAL_RANK = 16
Basis = Literal["trainable", "frozen"]


def make_adapter(
    model: Any,
    subspace: Subspace,
    *,
    modules: Sequence[str] = ATTENTION,
    rank: int = USUAL_RANK,
    uncovered: Uncovered = "lora",
    basis: Basis = "trainable",
    match_norm: bool = False,
    seed: int = 0,
) -> PeftModel:
    """A LoRA adapter whose modules begin with the bases of a subspace.

    A module that writes to the residual stream begins with B = U and A = 0, one that reads it with
    A = U^T and B = 0, both at scaling 1, where U is the basis of its stream, carried through the
    norm between the two (`carry`). So the product is 0, the first logits are the base's, and what
    the first step writes lies in the span of U. Which factor begins with U, and with what, the
    published sources do not say: this is our choice.

    Any subspace will do, so controls (random bases, raw differences ...) are made here too.

    Args:
        model: causal language model of transformers; it is wrapped, its weights stay as they are.
        subspace: bases by stream. One basis serves readers of the stream and writers to it.
        modules: roles, of `q`, `k`, `v`, `o`, `gate`, `up`, `down`.
        rank: of all modules; a basis of fewer directions makes its modules' rank less, and of
            one with more the first are taken.
        uncovered: what modules without a basis of their own get: `lora` is PEFT's default begin
            (A random, B = 0), `nearest` the basis of the nearest stream, the lower of two, `none`
            no adapter.
        basis: `frozen` trains the other factor alone, so that updates never leave the span.
        match_norm: of modules without a basis, as for `make_plain_adapter`.
        seed: of random factors.

    Raises:
        AlignmentError: PEFT is missing; the model's kind is unknown, it is quantised or has an
            adapter; the subspace is of another model, or a basis serves none of the modules; an
            unknown role; a rank below 1.
    """
    sites = find_sites(model, modules)
    check_fits(model, subspace, sites)
    plans = [plan_module(site, subspace, rank, uncovered) for site in sites]
    kept = [plan for plan in plans if plan is not None]
    options = {
        "modules": sorted(set(modules)),
        "rank": rank,
        "uncovered": uncovered,
        "basis": basis,
        "match_norm": match_norm,
        "seed": seed,
    }
    return _build(model, subspace, kept, options, frozen=basis == "frozen", matched=match_norm)


def make_plain_adapter(
    model: Any,
    *,
    modules: Sequence[str] = ATTENTION,
    rank: int = USUAL_RANK,
    match_norm: bool = True,
    seed: int = 0,
) -> PeftModel:
    """Plain LoRA, the control without a subspace: A random, B = 0, scaling 1.

    Args:
        model: as for `make_adapter`.
        modules: roles.
        rank: of all modules.
        match_norm: scale each A to the Frobenius norm of an orthonormal basis, √rank; PEFT's own
            is about √(rank / 3). A longer factor learns faster at the same learning rate, so a
            fair control has the same length.
        seed: of the random factors.

    Raises:
        AlignmentError: as `make_adapter`.
    """
    sites = find_sites(model, modules)
    plans = [Plan(site, "lora", None, rank) for site in sites]
    options = {
        "modules": sorted(set(modules)),
        "rank": rank,
        "match_norm": match_norm,
        "seed": seed,
    }
    return _build(model, None, plans, options, frozen=False, matched=match_norm)


def adapter_parameters(
    configuration: Any, *, rank: int = USUAL_RANK, modules: Sequence[str] = ATTENTION
) -> int:
    """Parameters of an adapter on all blocks: layers · rank · Σ (d_in + d_out) over the modules.

    For q, k, v, o the sum is (d + h·h_d) + 2 (d + h_kv·h_d) + (h·h_d + d) with d the width of the
    residual stream and h, h_kv heads of size h_d. Gemma-2-2B at rank 16 has 6,389,760.

    Args:
        configuration: of transformers, of a model whose MLP has a gate (Llama and its kin).
        rank: of all modules.
        modules: roles.
    """
    c = configuration.get_text_config()
    d, heads = c.hidden_size, c.num_attention_heads
    size = getattr(c, "head_dim", None) or d // heads
    key_values = getattr(c, "num_key_value_heads", None) or heads
    widths = {
        **dict.fromkeys("qo", heads * size),
        **dict.fromkeys("kv", key_values * size),
        **dict.fromkeys(("gate", "up", "down"), c.intermediate_size),
    }
    return int(c.num_hidden_layers * rank * sum(d + widths[role] for role in set(modules)))


def _build(
    model: Any,
    subspace: Subspace | None,
    plans: Sequence[Plan],
    options: dict[str, Any],
    *,
    frozen: bool,
    matched: bool,
) -> PeftModel:
    peft = import_peft()
    checksum, precision = base_checksum(model), precision_of(model)
    gains = {path: norm_gain(model.get_submodule(path)) for path in _norms(plans)}
    # The caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[]), quiet_peft():
        torch.manual_seed(options["seed"])
        adapted = peft.get_peft_model(model, lora_configuration(plans, options["rank"]))
    layers = dict(adapted.base_model.model.named_modules())
    records = []
    for plan in plans:
        layer = layers[plan.site.module]
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        carried = None
        with torch.no_grad():
            if plan.layer is not None:
                gain = gains[plan.site.norm] if plan.site.norm is not None else None
                carried = carry(plan.layer.basis[:, : plan.rank], gain)
                _begin(plan.site, carried, a, b)
            elif matched:
                a.mul_(plan.rank**0.5 / a.norm())
        records.append(_record(plan, carried, a.numel() + b.numel(), frozen=frozen))
    freeze(adapted, {one.module: one.frozen for one in records if one.frozen})
    named = str(getattr(model.config, "_name_or_path", "") or "")
    provenance = Provenance(
        model=named if subspace is None else subspace.model,
        route="lora" if subspace is None else subspace.route,
        contrast="" if subspace is None else subspace.contrast,
        reducer="" if subspace is None else subspace.reducer,
        subspace=None if subspace is None else subspace.fingerprint,
        layers=() if subspace is None else layer_records(subspace),
        modules=tuple(records),
        blocks=int(model.config.get_text_config().num_hidden_layers),
        options=options,
        parameters=sum(one.parameters for one in records),
        trainable=sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        base_checksum=checksum,
        base_dtype=precision,
    )
    remember(adapted, provenance)
    built: PeftModel = adapted
    return built


def _norms(plans: Sequence[Plan]) -> set[str]:
    return {plan.site.norm for plan in plans if plan.layer is not None and plan.site.norm}


def _begin(site: Site, carried: Carried, a: Any, b: Any) -> None:
    """A reader's A or a writer's B takes the basis; the other factor is 0."""
    if site.kind == "reader":
        a.copy_(carried.factor.T)
        b.zero_()
    else:
        b.copy_(carried.factor)
        a.zero_()


def _record(plan: Plan, carried: Carried | None, parameters: int, *, frozen: bool) -> ModuleRecord:
    factor: Literal["lora_A", "lora_B"] = "lora_A" if plan.site.kind == "reader" else "lora_B"
    return ModuleRecord(
        module=plan.site.module,
        block=plan.site.block,
        kind=plan.site.kind,
        rank=plan.rank,
        start=plan.start,
        stream=None if plan.layer is None else plan.layer.stream,
        fidelity=None if carried is None else carried.fidelity,
        frozen=factor if frozen and carried is not None else None,
        parameters=parameters,
    )
