"""Does a candidate belong where it says it does? It is tried on what it might have been made for.

A few content tokens are rebuilt from the candidate's own hook point, from the same one of every
other layer, from its inputs scaled as SAELens scales them in training, and from its inputs turned
at random. Error is compared coordinate by coordinate, each by its own variance: a few coordinates
of huge variance would else hide all others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._activations import Site
from safesail.ranking._sample import Code, Firings, chunks_of
from safesail.sparse_autoencoder import SparseAutoencoder

_TOKENS = 48
# A look at every third of them clears almost every healthy candidate.
_GLANCE = 3
# With fewer tokens, nothing is said.
_LEAST_TOKENS = 24
_TEXTS = 8
_TOKENS_PER_TEXT = 12


@dataclass(frozen=True)
class Wiring:
    """Share of the variance left unexplained, mean over coordinates, on a few content tokens.

    Attributes:
        own: at the candidate's own site.
        layers: at the same site of other layers, by the hook point read.
        scaled: with inputs scaled to a mean norm of sqrt(d_in), and the result scaled back; None
            for an SAE that scales each input itself, or that rebuilds another hook point.
        scale: that factor.
        turned: with the signs and places of the inputs' coordinates drawn at random; what is left
            of the candidate's knowledge of the model then is its dictionary's size.
    """

    own: float
    layers: dict[str, float]
    scaled: float | None
    scale: float
    turned: float

    @property
    def is_clear(self) -> bool:
        """Whether all is far from what would be said of it."""
        others = [*self.layers.values(), *([] if self.scaled is None else [self.scaled])]
        return self.own < 0.4 * self.turned and all(other > 0.95 * self.own for other in others)


class Probe:
    """A few content tokens at sites of every layer."""

    def __init__(
        self,
        model: LanguageModel,
        sample: Sequence[TokenizedText],
        sites: Sequence[Site],
        *,
        prepend_bos: bool,
    ) -> None:
        """Read them, in one forward pass through all layers.

        Args:
            model: the language model.
            sample: the corpus sample; the beginnings of some of its texts are read.
            sites: of the candidates.
            prepend_bos: whether texts begin with BOS.
        """
        self._siblings = {site: _siblings(model, site) for site in sites}
        all_sites = {s for siblings in self._siblings.values() for s in siblings} | set(sites)
        points = sorted({point for site in all_sites for point in site})
        step = max(1, len(sample) // _TEXTS)
        starts = [
            TokenizedText(
                text.document,
                text.start,
                text.token_ids[:_TOKENS_PER_TEXT],
                text.token_strings[:_TOKENS_PER_TEXT],
            )
            for text in sample[::step][:_TEXTS]
        ]
        batches = model.batches(starts, prepend_bos=prepend_bos)
        _, ((batch, found), *_) = model.observe_and_calibrate(batches, points)
        content = batch.content_mask
        for observation in found.values():
            content = content & observation.content_mask
        tokens = int(content.sum())
        chosen = torch.linspace(0, tokens - 1, min(tokens, _TOKENS)).long()
        self._values = {
            point: observation.activations[content][chosen.to(content.device)]
            for point, observation in found.items()
        }
        self._tokens = len(chosen)

    def try_on(self, sae: SparseAutoencoder) -> Wiring | None:
        """Try a candidate; None where the sample has too few tokens to tell."""
        if self._tokens < _LEAST_TOKENS:
            return None
        glance = self._look(sae, _GLANCE)
        return glance if glance.is_clear else self._look(sae, 1)

    def _look(self, sae: SparseAutoencoder, step: int) -> Wiring:
        """Try a candidate on every `step`-th of the tokens."""
        site = Site(sae.hook_point, sae.output_hook_point)
        values = {point: activations[::step] for point, activations in self._values.items()}
        inputs, targets = values[site.read], values[site.rebuilt]
        # Layers may differ in size.
        siblings = [
            other
            for other in self._siblings[site]
            if all(values[o].shape == values[p].shape for o, p in zip(other, site, strict=True))
        ]
        same = site.read == site.rebuilt
        scale = sae.d_in**0.5 / inputs.norm(dim=1).mean().item()
        generator = torch.Generator().manual_seed(0)
        places = torch.randperm(sae.d_in, generator=generator).to(inputs.device)
        signs = torch.randint(0, 2, (sae.d_in,), generator=generator).to(inputs) * 2 - 1
        turned = inputs[:, places] * signs
        trials = [
            (inputs, targets),
            (turned, turned if same else targets),
            *((values[other.read], values[other.rebuilt]) for other in siblings),
        ]
        if same:
            trials.append((inputs * scale, targets * scale))
        own, in_turn, *others = _unexplained(sae, trials)
        layers = dict(zip([other.read for other in siblings], others, strict=False))
        return Wiring(own, layers, others[-1] if same else None, scale, in_turn)


def _siblings(model: LanguageModel, site: Site) -> list[Site]:
    """The same site in the other layers, where they have it."""
    found = []
    for layer in range(model.layers):
        other = Site(*(re.sub(r"^blocks\.\d+\.", f"blocks.{layer}.", point) for point in site))
        try:
            known = other == Site(*(model.hook_point(point) for point in other))
        except ModelError:
            continue
        if known and other != site:
            found.append(other)
    return found


def _unexplained(sae: SparseAutoencoder, trials: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Of inputs and targets, each [n, d] with one n: the share left unexplained by coordinate."""
    together = torch.cat([inputs for inputs, _ in trials])
    rebuilt = []
    for inputs in together.tensor_split(chunks_of(len(together), sae.width)):
        activations = sae.encode(inputs)
        code = Code(activations)
        for firings in Firings.of(activations):
            code.add(firings)
        rebuilt.append(sae.decode(code.tensor()))
    shares = []
    tokens = len(trials[0][0])
    for (_, targets), found in zip(trials, torch.cat(rebuilt).split(tokens), strict=True):
        error = (targets - found).square().mean(0)
        variance = targets.var(0, correction=0)
        varying = variance > 0
        shares.append(float((error[varying] / variance[varying]).mean()))
    return shares
