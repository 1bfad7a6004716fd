"""What an adapter changes, along which features: the results of reading it back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safesail.alignment._sites import Kind

VERSION = 1


@dataclass(frozen=True)
class FeatureShare:
    """How much of a change lies along one feature.

    Attributes:
        feature: its index in the SAE.
        share: of ‖ΔW‖² along its direction; shares of several features overlap.
        explanation: None where it has none.
    """

    feature: int
    share: float
    explanation: str | None


@dataclass(frozen=True)
class SpanShare:
    """How much of a change lies in the span of several directions.

    Attributes:
        directions: how many they are.
        rank: how many of them are independent.
        share: of ‖ΔW‖² in their span.
        chance: expected share of a random subspace of that rank, all ways alike, rank / d_model.
    """

    directions: int
    rank: int
    share: float
    chance: float


@dataclass(frozen=True)
class SaeReading:
    """A module's change seen through one SAE.

    Attributes:
        sae: its name.
        chosen: share of the chosen features' span; None where none are chosen.
        top: features with the largest shares, largest first.
        chance: expected share along one random direction, 1 / d_model.
        chance_best: expected largest share along any of as many random directions as the SAE has
            features, all ways alike. Neither a trained change nor an SAE's directions need be so:
            a top share above it is no sign that features had a part. Compare with the reading
            of a plain LoRA or random-basis adapter that was trained alike.
    """

    sae: str
    chosen: SpanShare | None
    top: tuple[FeatureShare, ...]
    chance: float
    chance_best: float


@dataclass(frozen=True)
class ModuleReading:
    """What an adapter changes in one module.

    Attributes:
        module: its path in the base model.
        block: number of its block.
        kind: `reader` or `writer`.
        stream: state of the residual stream that it reads or writes.
        norm: ‖ΔW‖_F of the weight as it is.
        basis: share in the subspace's basis of the stream whose basis the module began with by
            the adapter's provenance (`ModuleRecord.stream`; of `nearest` another one), or else of
            its own stream; None where no subspace is given or it has no such basis.
        saes: one reading for each SAE of that stream.
    """

    module: str
    block: int
    kind: Kind
    stream: int
    norm: float
    basis: SpanShare | None
    saes: tuple[SaeReading, ...]


@dataclass(frozen=True)
class AdapterReading:
    """What an adapter changes, along which features.

    Attributes:
        adapter: its folder.
        route: of its provenance; `unknown` where it has none.
        modules: that read or write the residual stream, block by block.
        unread: what else it changes, of which nothing is said: modules off the stream and
            embeddings by their path; biases, trained tokens and modules that are saved whole by
            the name of the parameter.
    """

    adapter: str
    route: str
    modules: tuple[ModuleReading, ...]
    unread: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The shape that docs/adapter.md describes: the attributes, by name."""
        return {"version": VERSION, **asdict(self)}
