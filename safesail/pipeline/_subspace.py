"""From a study's SAEs and the user's data to a subspace, with advice on the route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from safesail.errors import AlignmentError, InputError
from safesail.pipeline._corrected import explanations_of
from safesail.pipeline._workspace import Workspace, rows_of
from safesail.tables import RANKINGS, explanation_rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safesail.alignment import (
        Advice,
        ContrastTexts,
        Example,
        Subspace,
    )
    from safesail.alignment._contrast import Contrast
    from safesail.alignment._reduce import Reducer
    from safesail.alignment._routes import Route

ROUTES = (
    "sae",
    "raw_difference_pca",
    "covariance_difference",
    "mean_difference",
    "random",
    "random_features",
    "shuffled_labels",
)
"""Names of the routes to a subspace, the controls last."""


@dataclass(frozen=True)
class ContrastData:
    """Texts of two sides.

    Attributes:
        aligned: prompts with the answers wanted; with empty answers where prompts are compared.
        unaligned: the same of the answers not wanted.
        paired: row i of both is one pair.
        over: the part of the texts that is pooled.
    """

    aligned: Sequence[Example]
    unaligned: Sequence[Example]
    paired: bool
    over: Literal["response", "prompt"] = "response"


@dataclass(frozen=True)
class SubspaceSettings:
    """How a subspace is found.

    Attributes:
        rank: directions a layer.
        contrast: `abs`, `t` or `relative`.
        reducer: `weighted` or `pca80`.
        concepts: choose among features that the study's explanations give to one of these; among
            all where there are none.
        max_tokens: of a text.
        seed: of random pairs, bases and draws.
    """

    rank: int = 16
    contrast: Contrast = "abs"
    reducer: Reducer = "weighted"
    concepts: tuple[str, ...] = ()
    max_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True)
class PooledLayer:
    """What one SAE makes of both sides.

    Attributes:
        sae: its name.
        fingerprint: changes when its files do.
        hook_point: its site.
        decoder: float32 [features, d_model], its decoder rows of length 1.
        stream: state of the residual stream that it belongs to.
        writers_only: its site is one block's output.
        texts: hidden states and activations of both sides.
        explanations: explanation and concepts by feature.
        advice: on the route, from facts of these texts; None where they allow none.
    """

    sae: str
    fingerprint: str
    hook_point: str
    decoder: NDArray[np.float32]
    stream: int
    writers_only: bool
    texts: ContrastTexts
    explanations: Mapping[int, tuple[str, tuple[str, ...]]]
    advice: Advice | None


def pool_layers(
    workspace: Workspace, saes: Sequence[str], data: ContrastData, settings: SubspaceSettings
) -> list[PooledLayer]:
    """Read both sides with the model and the SAEs, and measure what advice rests on.

    Args:
        workspace: the study, its model and SAEs.
        saes: names of SAEs; by default those that have explanations, one a layer.
        data: both sides.
        settings: how the subspace is to be found.

    Raises:
        AlignmentError: two SAEs of one stream are named, or the texts cannot be read.
        InputError: no SAE is named, and none has explanations; or none of an SAE's explanations
            names a concept that is to choose.
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import ContrastTexts, stream_site
    from safesail.alignment._pooling import plain_texts, pooled, response_texts

    model = workspace.model
    found: dict[int, PooledLayer] = {}
    ranked = {row["sae"]: row for row in rows_of(workspace.study.rankings, RANKINGS)}
    for name in saes_of(workspace, saes):
        sae = workspace.load_sae(name)
        if sae.hook_point != sae.output_hook_point:
            raise AlignmentError(
                f"{name} is a transcoder: what it reads is not what it writes; name an SAE"
            )
        stream, writers_only = stream_site(sae.hook_point)
        if stream in found:
            raise AlignmentError(
                f"{found[stream].sae} and {name} belong to the same state of the residual "
                "stream: name one of them with --sae"
            )
        for warning in sae.warnings:
            workspace.tell(f"{name}: {warning}")
        explanations = best_explanations(workspace, name)
        among = _among(name, explanations, settings.concepts)
        sides: list[Any] = []
        for examples in (data.aligned, data.unaligned):
            if data.over == "response":
                most = min(settings.max_tokens, model.context_size)
                texts, with_bos = response_texts(examples, model, max_tokens=most)
            else:
                chat = bool(model.tokenizer.chat_template)
                texts = plain_texts([one.prompt for one in examples], model, chat=chat)
                with_bos = sae.prepend_bos
            sides.append(pooled(model, sae, texts, prepend_bos=with_bos))
        (aligned, aligned_z), (unaligned, unaligned_z) = sides
        both = ContrastTexts(aligned, unaligned, aligned_z, unaligned_z, data.paired)
        decoder = sae.decoder_directions.cpu().numpy()
        advice = None
        try:
            advice = _advice(both, decoder, ranked.get(name, {}), settings, among)
        except AlignmentError as error:
            workspace.tell(f"{name}: no advice on the route: {error}")
        found[stream] = PooledLayer(
            name,
            sae.fingerprint,
            sae.hook_point,
            decoder,
            stream,
            writers_only,
            both,
            explanations,
            advice,
        )
    return [found[stream] for stream in sorted(found)]


def make_subspace(
    workspace: Workspace,
    layers: Sequence[PooledLayer],
    settings: SubspaceSettings,
    route: Route = "sae",
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> Subspace:
    """The subspace of a route, or of a control.

    Args:
        workspace: the study.
        layers: of `pool_layers`.
        settings: how the subspace is found.
        route: `sae`, a direct route, or a control.
        tell: is given warnings.

    Raises:
        AlignmentError: too few features or texts; see `safesail.alignment`.
    """
    from safesail.alignment import Subspace, layer_by_route

    made = []
    for layer in layers:
        one, warnings = layer_by_route(
            route,
            layer.texts,
            layer.decoder,
            settings.rank,
            stream=layer.stream,
            hook_point=layer.hook_point,
            sae=layer.sae,
            contrast=settings.contrast,
            reducer=settings.reducer,
            among=_among(layer.sae, layer.explanations, settings.concepts),
            explanations=layer.explanations,
            writers_only=layer.writers_only,
            seed=settings.seed + layer.stream,
        )
        made.append(one)
        for warning in warnings:
            tell(f"{layer.sae}: {warning}")
    return Subspace(
        workspace.settings.model.name,
        tuple(made),
        settings.contrast if route in ("sae", "shuffled_labels") else "",
        settings.reducer if route in ("sae", "shuffled_labels", "random_features") else "",
        route,
    )


def _among(
    sae: str, explanations: Mapping[int, tuple[str, tuple[str, ...]]], concepts: Sequence[str]
) -> list[int] | None:
    """Features that explanations give to a concept, or to a child of it; None for no concept.

    Raises:
        InputError: there is no such feature.
    """
    if not concepts:
        return None
    found: set[int] = set()
    for name in concepts:
        of_name = {
            feature
            for feature, (_, of) in explanations.items()
            if any(one == name or one.startswith(f"{name}/") for one in of)
        }
        if not of_name:
            known = ", ".join(sorted({one for _, of in explanations.values() for one in of}))
            raise InputError(
                f"no explained feature of {sae} is given to {name!r}; its explanations name "
                f"{known or 'no concept'}"
            )
        found |= of_name
    return sorted(found)


def _advice(
    texts: ContrastTexts,
    decoder: NDArray[np.float32],
    ranking: Mapping[str, Any],
    settings: SubspaceSettings,
    among: Sequence[int] | None,
) -> Advice:
    from safesail.alignment import advise, measure_facts

    return advise(
        measure_facts(
            texts,
            decoder,
            settings.rank,
            contrast=settings.contrast,
            reducer=settings.reducer,
            among=among,
            fvu=ranking.get("fvu"),
            l0=ranking.get("l0"),
            seed=settings.seed,
        )
    )


def saes_of(workspace: Workspace, names: Sequence[str] = ()) -> Sequence[str]:
    """SAEs by name; where none is named, those that have explanations.

    Raises:
        InputError: none is named, and none has explanations.
    """
    if names:
        return names
    from safesail.pipeline._diagnose import explained_saes

    try:
        return explained_saes(workspace.study)
    except InputError:
        raise InputError(
            f"no SAE is explained in {workspace.study.folder}: name some with --sae, or run "
            "`safesail explain`, so that the subspace's features can be read"
        ) from None


def best_explanations(workspace: Workspace, sae: str) -> dict[int, tuple[str, tuple[str, ...]]]:
    """The best explanation and the concepts of each feature that has one."""
    language = workspace.settings.judge.language
    best: dict[int, dict[str, Any]] = {}
    for row in explanations_of(workspace.study, sae):
        known = best.get(row["feature"])
        if known is None or explanation_rank(row, language) > explanation_rank(known, language):
            best[row["feature"]] = row
    return {
        feature: (row["explanation"], tuple(row["judge_concepts"] or row["concepts"] or ()))
        for feature, row in best.items()
        if row["explanation"] is not None
    }
