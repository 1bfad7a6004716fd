"""From a study's SAEs and the user's data to a subspace, with advice on the route."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from safesail.alignment._names import Route
from safesail.errors import AlignmentError
from safesail.pipeline._explained import best_explanations, features_of, require_explained, saes_of
from safesail.pipeline._workspace import Workspace, rows_of
from safesail.tables import RANKINGS

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
    from safesail.sparse_autoencoder import SparseAutoencoder


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

    def prompt_digests(self) -> frozenset[str]:
        """Digests of what is asked in them, by which an evaluation knows them again."""
        from safesail.alignment._prompts import prompt_digest

        return frozenset(prompt_digest(one.prompt) for one in (*self.aligned, *self.unaligned))


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
        advice: on the route, from facts of these texts; None where they allow none, or where none
            was asked for.
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
    workspace: Workspace,
    saes: Sequence[str],
    data: ContrastData,
    settings: SubspaceSettings,
    *,
    modules: Sequence[str],
    advise: bool = True,
) -> list[PooledLayer]:
    """Read both sides with the model and the SAEs, and measure what advice rests on.

    Args:
        workspace: the study, its model and SAEs.
        saes: names of SAEs; by default those that have explanations, one a layer.
        data: both sides.
        settings: how the subspace is to be found.
        modules: roles that are to be adapted: each basis must serve one of them.
        advise: measure what advice rests on, which takes longer than the rest.

    Raises:
        AlignmentError: two SAEs of one stream are named, one serves no module, the rank is not
            below the stream's width, or the texts cannot be read.
        InputError: no SAE is named, and none has explanations; or none of an SAE's explanations
            names a concept that is to choose.
        SafesailError: see `safesail.errors`.
    """
    from safesail.alignment import stream_site

    found: dict[int, PooledLayer] = {}
    ranked = {row["sae"]: row for row in rows_of(workspace.study.rankings, RANKINGS)}
    taken: dict[int, str] = {}
    names = saes_of(workspace, saes)
    for group in _groups(workspace, names, data, settings, modules, taken):
        for sae, both in zip(group, _pooled(workspace, group, data, settings), strict=True):
            stream, writers_only = stream_site(sae.hook_point)
            explanations = best_explanations(workspace, sae.name)
            among = features_of(sae.name, explanations, settings.concepts)
            decoder = sae.decoder_directions.cpu().numpy()
            advice = None
            try:
                if advise:
                    row = ranked.get(sae.name, {})
                    advice = _advice(both, decoder, row, settings, among)
            except AlignmentError as error:
                workspace.tell(f"{sae.name}: no advice on the route: {error}")
            found[stream] = PooledLayer(
                sae.name,
                sae.fingerprint,
                sae.hook_point,
                decoder,
                stream,
                writers_only,
                both,
                explanations,
                advice,
            )
        # Else it is held while the next one is loaded.
        del group, sae
    return [found[stream] for stream in sorted(found)]


def _groups(
    workspace: Workspace,
    names: Sequence[str],
    data: ContrastData,
    settings: SubspaceSettings,
    modules: Sequence[str],
    taken: dict[int, str],
) -> Iterator[list[SparseAutoencoder]]:
    """SAEs that read the texts alike and fit in memory together."""
    from safesail.sparse_autoencoder import memory_limit

    limit = memory_limit(workspace.model.device)
    group: list[SparseAutoencoder] = []
    held = 0.0
    for name in names:
        sae = _checked(workspace, name, settings, modules, taken)
        size = 4.0 * sae.width * (sae.d_in + sae.d_out)
        # Answers begin as the chat template has them, whatever the SAE was trained on.
        alike = data.over == "response" or not group or sae.prepend_bos == group[0].prepend_bos
        if group and (held + size > limit or not alike):
            yield group
            group, held = [], 0.0
        group.append(sae)
        held += size
    yield group


def _checked(
    workspace: Workspace,
    name: str,
    settings: SubspaceSettings,
    modules: Sequence[str],
    taken: dict[int, str],
) -> SparseAutoencoder:
    """An SAE that a subspace can be made of; `taken` has those of other states by then."""
    from safesail.alignment import stream_site
    from safesail.alignment._layouts import check_served

    sae = workspace.load_sae(name)
    if sae.hook_point != sae.output_hook_point:
        raise AlignmentError(
            f"{name} is a transcoder: what it reads is not what it writes; name an SAE"
        )
    stream, writers_only = stream_site(sae.hook_point)
    check_served(
        sae.hook_point, stream, modules, blocks=workspace.model.layers, writers_only=writers_only
    )
    if settings.rank >= sae.d_in:
        raise AlignmentError(
            f"rank {settings.rank} in a stream of {sae.d_in} dimensions: choose a lower one"
        )
    if stream in taken:
        raise AlignmentError(
            f"{taken[stream]} and {name} belong to the same state of the residual stream: name one "
            "of them with --sae"
        )
    taken[stream] = name
    for warning in sae.warnings:
        workspace.tell(f"{name}: {warning}")
    require_explained(workspace, sae)
    features_of(name, best_explanations(workspace, name), settings.concepts)
    return sae


def _pooled(
    workspace: Workspace,
    saes: Sequence[SparseAutoencoder],
    data: ContrastData,
    settings: SubspaceSettings,
) -> list[ContrastTexts]:
    """Both sides, read as one so that what counts as an attention sink is the same for both."""
    from safesail.alignment import ContrastTexts
    from safesail.alignment._pooling import plain_texts, pooled, response_texts

    model = workspace.model
    examples = [*data.aligned, *data.unaligned]
    if data.over == "response":
        most = min(settings.max_tokens, model.context_size)
        texts, with_bos = response_texts(examples, model, max_tokens=most)
    else:
        chat = bool(model.tokenizer.chat_template)
        texts = plain_texts([one.prompt for one in examples], model, chat=chat)
        with_bos = saes[0].prepend_bos
    first = len(data.aligned)
    return [
        ContrastTexts(
            hidden[:first], hidden[first:], activations[:first], activations[first:], data.paired
        )
        for hidden, activations in pooled(model, saes, texts, prepend_bos=with_bos)
    ]


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
            among=features_of(layer.sae, layer.explanations, settings.concepts),
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
