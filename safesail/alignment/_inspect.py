"""Read an adapter back: how much of what it changes lies along which features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from safesail.alignment._lora_files import Factors, read_lora
from safesail.alignment._provenance import PROVENANCE_FILE, Provenance
from safesail.alignment._readings import (
    AdapterReading,
    FeatureShare,
    ModuleReading,
    SaeReading,
    SpanShare,
)
from safesail.alignment._sites import Site, find_sites, norm_gain, roles_of
from safesail.alignment._streams import stream_site
from safesail.alignment._subspace import Subspace
from safesail.errors import AlignmentError

if TYPE_CHECKING:
    from safesail.sparse_autoencoder import SparseAutoencoder

_CHANCE_DRAWS = 20
_CHANCE_DIRECTIONS = 200_000
"""So many random directions are drawn in all; the largest of many hardly differs between draws."""
# Directions whose part outside the others is smaller than this share of the largest add nothing.
_RANK_TOLERANCE = 1e-5


@dataclass(frozen=True)
class FeatureDirections:
    """The directions in which an SAE's features write to the residual stream.

    Attributes:
        sae: its name.
        stream: state of the stream that it belongs to; see `LayerSubspace`.
        directions: float32 [features, d_model], rows of length 1.
        explanations: of features that have one.
        chosen: features whose common span is measured; where there are none, those that the
            adapter's provenance names for this SAE.
        writers_only: says nothing of modules that read the stream.
    """

    sae: str
    stream: int
    directions: Tensor
    explanations: Mapping[int, str]
    chosen: tuple[int, ...] = ()
    writers_only: bool = False

    @classmethod
    def of_sae(
        cls,
        sae: SparseAutoencoder,
        explanations: Mapping[int, str] | None = None,
        chosen: Sequence[int] = (),
    ) -> FeatureDirections:
        """The decoder directions of an SAE.

        Raises:
            AlignmentError: it rebuilds something else than the residual stream or what is added
                to it.
        """
        stream, writers_only = stream_site(sae.output_hook_point)
        directions = sae.decoder_directions.detach().float().cpu()
        return cls(sae.name, stream, directions, explanations or {}, tuple(chosen), writers_only)


def inspect_adapter(
    folder: Path,
    model: Any,
    features: Sequence[FeatureDirections] = (),
    *,
    subspace: Subspace | None = None,
    top: int = 10,
    seed: int = 0,
) -> AdapterReading:
    """How much of each module's change lies along which features.

    ΔW = scaling · B A is taken as the residual stream sees it: of a writer the columns, times the
    gain g of the norm after it, diag(g) ΔW; of a reader the rows, times the gain of the norm
    before it, ΔW diag(g). The share of a unit direction d is ‖dᵀ diag(g) ΔW‖² / ‖diag(g) ΔW‖²,
    and ‖ΔW diag(g) d‖² / ‖ΔW diag(g)‖²; of a span, the same of its projection. What inputs a
    module really gets does not count here: a direction that no text brings may hold a share. Our
    definition; the paper goes from SAE to LoRA alone.

    Args:
        folder: any plain LoRA adapter that PEFT saved, ours or another's.
        model: its base, without adapters; for the gains of its norms.
        features: directions of SAEs.
        subspace: whose bases are measured too; see `ModuleReading.basis`.
        top: features to name per module and SAE.
        seed: of the random directions behind `chance_best`.

    Raises:
        AlignmentError: the folder is no plain LoRA adapter, one whose begin changed the base's
            weights or that changes norms too, or of another model; directions of another width
            than the model's stream; a chosen feature, or one of the provenance, that its SAE has
            not.
        StorageError: its provenance file is damaged.
    """
    factors, others = read_lora(folder)
    provenance = Provenance.read(folder) if (folder / PROVENANCE_FILE).exists() else None
    sites = [site for site in find_sites(model, roles_of(model)) if site.module in factors]
    if not sites:
        raise AlignmentError(
            f"{folder} changes no module that this model has at its residual stream: give the "
            "model that it was made for"
        )
    norms = {f"{site.norm}.weight" for site in sites if site.norm} & set(others)
    if norms:
        raise AlignmentError(
            f"{folder} changes {min(norms)} too, through which its modules meet the stream: what "
            "it changes is not its B A alone"
        )
    width = sites[0].d_model
    given = [(one.sae, one.directions.shape[1]) for one in features]
    given += [(one.hook_point, one.basis.shape[0]) for one in (subspace.layers if subspace else ())]
    for name, size in given:
        if size != width:
            raise AlignmentError(
                f"{name} has {size} numbers per direction, the model's stream {width}: it is of "
                "another model"
            )
    began = {} if provenance is None else {one.module: one.stream for one in provenance.modules}
    generator = np.random.default_rng(seed)
    modules = []
    for site in sites:
        seen = _as_the_stream_sees(factors[site.module], site, model)
        modules.append(
            ModuleReading(
                site.module,
                site.block,
                site.kind,
                site.stream,
                _length(factors[site.module]),
                _basis_share(seen, site, began.get(site.module), subspace),
                tuple(
                    _reading(seen, one, _chosen(one, provenance), top, generator)
                    for one in features
                    if one.stream == site.stream and (site.kind == "writer" or not one.writers_only)
                ),
            )
        )
    unread = sorted({*factors, *others} - {site.module for site in sites})
    route = "unknown" if provenance is None else provenance.route
    return AdapterReading(str(folder), route, tuple(modules), tuple(unread))


def _as_the_stream_sees(factors: Factors, site: Site, model: Any) -> Tensor:
    """float64 [d_model, r] C, with C Cᵀ = M Mᵀ for the change M whose columns lie in the stream."""
    a, b = factors.a.double().cpu(), factors.b.double().cpu()
    if (a.shape[1], b.shape[0]) != (site.d_in, site.d_out):
        raise AlignmentError(
            f"the adapter's {site.module} is {b.shape[0]} x {a.shape[1]}, the model's "
            f"{site.d_out} x {site.d_in}: it is of another model"
        )
    stream, other = (a.T, b.T) if site.kind == "reader" else (b, a)
    if site.norm is not None:
        stream = norm_gain(model.get_submodule(site.norm))[:, None] * stream
    # M = S O, so M Mᵀ = S (O Oᵀ) Sᵀ; the root of the small matrix in the middle goes to S.
    values, vectors = torch.linalg.eigh(other @ other.T)
    return factors.scaling * stream @ (vectors * values.clamp(min=0).sqrt())


def _length(factors: Factors) -> float:
    a, b = factors.a.double(), factors.b.double()
    inner = float(((b.T @ b) * (a @ a.T)).sum())
    return abs(factors.scaling) * max(0.0, inner) ** 0.5


def _chosen(one: FeatureDirections, provenance: Provenance | None) -> tuple[int, ...]:
    chosen, source = one.chosen, "was chosen"
    if not chosen and provenance is not None:
        source = "the adapter's provenance names"
        chosen = tuple(
            feature.feature
            for layer in provenance.layers
            if (layer.stream, layer.sae) == (one.stream, one.sae)
            for feature in layer.features
        )
    width = len(one.directions)
    absent = [feature for feature in chosen if not 0 <= feature < width]
    if absent:
        raise AlignmentError(
            f"{one.sae} has {width:,} features and no feature {absent[0]}, which {source}: give "
            "the SAE of that name that is meant"
        )
    return chosen


def _basis_share(
    seen: Tensor, site: Site, began: int | None, subspace: Subspace | None
) -> SpanShare | None:
    stream = site.stream if began is None else began
    layer = None if subspace is None else subspace.at(stream)
    if layer is None or (layer.writers_only and site.kind == "reader"):
        return None
    return _span_share(seen, torch.from_numpy(np.ascontiguousarray(layer.basis)).T)


def _reading(
    seen: Tensor,
    one: FeatureDirections,
    chosen: tuple[int, ...],
    top: int,
    generator: np.random.Generator,
) -> SaeReading:
    width = seen.shape[0]
    total = float(seen.square().sum())
    shares = (one.directions @ seen.float()).square().sum(dim=1).double() / (total or 1.0)
    best = shares.topk(min(top, len(shares)))
    return SaeReading(
        one.sae,
        _span_share(seen, one.directions[list(chosen)]) if chosen else None,
        tuple(
            FeatureShare(feature, share, one.explanations.get(feature))
            for share, feature in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ),
        1 / width,
        chance_of_best(seen, len(shares), generator),
    )


def _span_share(seen: Tensor, directions: Tensor) -> SpanShare:
    _, singular, rows = torch.linalg.svd(directions.double(), full_matrices=False)
    rank = int((singular > _RANK_TOLERANCE * singular[0]).sum()) if singular[0] > 0 else 0
    total = float(seen.square().sum())
    share = float((rows[:rank] @ seen).square().sum()) / (total or 1.0)
    return SpanShare(len(directions), rank, share, rank / seen.shape[0])


def chance_of_best(seen: Tensor, directions: int, generator: np.random.Generator) -> float:
    """Expected largest share along any of some random unit directions, all ways alike.

    It says what the number of directions does, no more: an adapter that was trained without
    features can have top features far above it.

    The share of a direction depends on its part in the r dimensions of the change alone. That part
    of a random unit vector is z / √(‖z‖² + q), z standard normal in r dimensions and q from χ²
    with d_model - r degrees of freedom: so r + 1 numbers are drawn for each direction.

    Args:
        seen: [d_model, r].
        directions: how many.
        generator: of random numbers.

    Returns:
        Mean over 3 to 20 draws, fewer for more directions; 0 where nothing is changed.
    """
    width = seen.shape[0]
    values = np.linalg.svd(seen.numpy(), compute_uv=False) ** 2
    if not values.sum() > 0:
        return 0.0
    largest = []
    for _ in range(min(_CHANCE_DRAWS, max(3, _CHANCE_DIRECTIONS // directions))):
        squares = generator.standard_normal((directions, len(values)), dtype=np.float32) ** 2
        rest = generator.chisquare(width - len(values), directions) if width > len(values) else 0.0
        held = (squares @ values) / (squares.sum(axis=1) + rest)
        largest.append(held.max() / values.sum())
    return float(np.mean(largest))
