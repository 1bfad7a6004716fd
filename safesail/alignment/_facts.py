"""What can be measured of a user's data without knowing the truth, to choose a route by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._contrast import Contrast, check_sides, contrast_features
from safesail.alignment._direct import (
    covariance_difference,
    differences,
    raw_difference_pca,
    shuffled_labels,
)
from safesail.alignment._permutation import p_value
from safesail.alignment._reduce import (
    Reducer,
    choose_features,
    reduce_pca80,
    reduce_weighted,
)
from safesail.errors import AlignmentError

Values = NDArray[np.floating[Any]]

MEASURED_ROUTES = ("sae", "raw_difference_pca", "covariance_difference")
SPLITS = 4
SHUFFLES = 3
"""Shufflings of the labels, each split in halves once."""


@dataclass(frozen=True)
class ContrastTexts:
    """Both sides at one site: hidden states and what the SAE makes of them, pooled alike.

    Attributes:
        aligned: [texts, d_model], hidden states.
        unaligned: the same of unaligned texts.
        aligned_activations: [texts, features].
        unaligned_activations: the same of unaligned texts.
        paired: row i of both sides is one pair.
    """

    aligned: Values
    unaligned: Values
    aligned_activations: Values
    unaligned_activations: Values
    paired: bool

    def __post_init__(self) -> None:
        for hidden, activations in (
            (self.aligned, self.aligned_activations),
            (self.unaligned, self.unaligned_activations),
        ):
            if len(hidden) != len(activations):
                raise ValueError(f"{len(hidden)} hidden states and {len(activations)} activations")

    def halves(self, generator: np.random.Generator) -> tuple[ContrastTexts, ContrastTexts]:
        """Two random halves of the texts; pairs stay together."""
        first = generator.permutation(len(self.aligned))
        second = first if self.paired else generator.permutation(len(self.unaligned))
        one, two = len(first) // 2, len(second) // 2
        return self._some(first[:one], second[:two]), self._some(first[one:], second[two:])

    def shuffled(self, seed: int) -> ContrastTexts:
        """The same texts with labels at random, as `shuffled_labels` deals them."""
        # One seed deals hidden states and activations alike: both have the same rows.
        hidden = shuffled_labels(self.aligned, self.unaligned, paired=self.paired, seed=seed)
        activations = shuffled_labels(
            self.aligned_activations, self.unaligned_activations, paired=self.paired, seed=seed
        )
        return ContrastTexts(*hidden, *activations, self.paired)

    def _some(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> ContrastTexts:
        return ContrastTexts(
            self.aligned[first],
            self.unaligned[second],
            self.aligned_activations[first],
            self.unaligned_activations[second],
            self.paired,
        )


@dataclass(frozen=True)
class Facts:
    """What the data say of themselves.

    Shares of spans are ‖U₁ᵀU₂‖² / r: 1 where two spans are one, r / d_model where they are
    independent.

    Attributes:
        rank: directions that each route was asked for.
        d_model: dimensions of a hidden state.
        texts: of the smaller side.
        pairing: share of the variance of differences between texts paired at random that pairing
            removes; None where there are no pairs.
        coherence: mean over the features chosen of the largest |cosine| of their decoder direction
            with another's; NaN where the SAE route failed.
        texts_per_feature: median over those features of the texts, of both sides, that each fires
            on; NaN where the SAE route failed.
        density: L0 over width of the SAE; None where it was not measured.
        fvu: fraction of variance that the SAE leaves unexplained; None where it was not measured.
        stability: by route, share of the spans found on two halves of the texts that is common to
            both; mean over splits. 0 for a route that failed.
        shuffled: the same where labels are at random, of the routes that depend on labels; mean
            over shufflings. Raw-difference PCA is left out: a difference's sign is nothing to it,
            so in pairs it finds the same span whatever the labels.
        p_value: of the hypothesis that labels tell nothing of mean hidden states, by permutation.
        agreement: by two routes, share that is common to their spans on all texts.
    """

    rank: int
    d_model: int
    texts: int
    pairing: float | None
    coherence: float
    texts_per_feature: float
    density: float | None
    fvu: float | None
    stability: dict[str, float]
    shuffled: dict[str, float]
    p_value: float
    agreement: dict[tuple[str, str], float]

    @property
    def texts_per_dimension(self) -> float:
        """Texts of the smaller side over dimensions of a hidden state."""
        return self.texts / self.d_model


def measure_facts(
    texts: ContrastTexts,
    decoder: Values,
    rank: int,
    *,
    contrast: Contrast = "abs",
    reducer: Reducer = "weighted",
    among: Sequence[int] | None = None,
    fvu: float | None = None,
    l0: float | None = None,
    seed: int = 0,
) -> Facts:
    """Measure what `advise` needs to know.

    Every route finds its subspace on all texts and on both halves of SPLITS random splits; those
    that depend on labels also on both halves of SHUFFLES shufflings.

    Args:
        texts: both sides at the SAE's site.
        decoder: [features, d_model], the SAE's decoder rows.
        rank: directions of the subspace.
        contrast: by which the SAE route chooses features.
        reducer: how it makes a basis of them.
        among: features that it chooses from; all by default.
        fvu: of the SAE on general text, as `rank-saes` measures it.
        l0: the same.
        seed: of the splits, of random pairs and of permuted labels.

    Raises:
        AlignmentError: both sides are the same, too small to be split, or rank is not below
            d_model.
    """
    check_sides(texts.aligned, texts.unaligned, paired=texts.paired)
    count, d_model = min(len(texts.aligned), len(texts.unaligned)), texts.aligned.shape[1]
    if count < 4:
        raise AlignmentError(
            f"{count} texts of a side: facts are measured on halves, give 4 or more"
        )
    if not 0 < rank < d_model:
        raise AlignmentError(f"rank {rank} in {d_model} dimensions: choose one between")
    generator = np.random.default_rng(seed)
    route = _SaeRoute(decoder, rank, contrast, reducer, among)
    whole = dict(_routes(texts, route, seed))
    stability: dict[str, list[float]] = {route: [] for route in MEASURED_ROUTES}
    for split in range(SPLITS):
        first, second = (
            dict(_routes(half, route, seed + split)) for half in texts.halves(generator)
        )
        for name, found in stability.items():
            found.append(_common(first.get(name), second.get(name), rank))
    # Of its own, so that what is drawn of labels leaves the splits as they are.
    labels = np.random.default_rng([seed, 1])
    shuffled = _shuffled(texts, route, labels)
    coherence, texts_per_feature = _of_features(texts, route)
    return Facts(
        rank=rank,
        d_model=d_model,
        texts=count,
        pairing=_pairing(texts) if texts.paired else None,
        coherence=coherence,
        texts_per_feature=texts_per_feature,
        density=None if l0 is None else l0 / len(decoder),
        fvu=fvu,
        stability={name: float(np.mean(found)) for name, found in stability.items()},
        shuffled=shuffled,
        p_value=p_value(texts.aligned, texts.unaligned, paired=texts.paired, generator=labels),
        agreement={
            (one, two): _common(whole.get(one), whole.get(two), rank)
            for one, two in combinations(MEASURED_ROUTES, 2)
        },
    )


@dataclass(frozen=True)
class _SaeRoute:
    """How the SAE route goes from texts to a basis."""

    decoder: Values
    rank: int
    contrast: Contrast
    reducer: Reducer
    among: Sequence[int] | None

    def chosen(self, texts: ContrastTexts) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Features, and the size of their differences."""
        found = contrast_features(
            texts.aligned_activations,
            texts.unaligned_activations,
            contrast=self.contrast,
            paired=texts.paired,
        )
        return choose_features(found, self.rank, reducer=self.reducer, among=self.among)

    def basis(self, texts: ContrastTexts) -> Values:
        chosen, weights = self.chosen(texts)
        if len(chosen) < self.rank:
            raise AlignmentError(f"{len(chosen)} features differ, fewer than rank {self.rank}")
        if self.reducer == "pca80":
            return reduce_pca80(self.decoder[chosen]).basis
        return reduce_weighted(self.decoder[chosen], weights, self.rank).basis


def _routes(texts: ContrastTexts, route: _SaeRoute, seed: int) -> Iterator[tuple[str, Values]]:
    """Bases of the routes that find one."""
    yield from _routes_by_labels(texts, route)
    raw = raw_difference_pca(
        texts.aligned, texts.unaligned, route.rank, paired=texts.paired, seed=seed
    )
    yield "raw_difference_pca", raw.basis


def _routes_by_labels(texts: ContrastTexts, route: _SaeRoute) -> Iterator[tuple[str, Values]]:
    """Bases of those routes that depend on which side is which."""
    try:
        basis = route.basis(texts)
    except AlignmentError:  # fewer features than rank differ: the direct routes may still do
        pass
    else:
        yield "sae", basis
    change = covariance_difference(texts.aligned, texts.unaligned, route.rank)
    yield "covariance_difference", change.basis


def _common(first: Values | None, second: Values | None, rank: int) -> float:
    if first is None or second is None:
        return 0.0
    return float(np.sum((first.T.astype(np.float64) @ second) ** 2)) / rank


def _shuffled(
    texts: ContrastTexts, route: _SaeRoute, generator: np.random.Generator
) -> dict[str, float]:
    """What the spans of two halves share where labels are at random, by route."""
    shares: dict[str, list[float]] = {"sae": [], "covariance_difference": []}
    for _ in range(SHUFFLES):
        random = texts.shuffled(int(generator.integers(2**32)))
        first, second = (dict(_routes_by_labels(half, route)) for half in random.halves(generator))
        for name, found in shares.items():
            found.append(_common(first.get(name), second.get(name), route.rank))
    return {name: float(np.mean(found)) for name, found in shares.items()}


def _pairing(texts: ContrastTexts) -> float:
    """1 less the variance of paired differences over that of independent ones."""
    of_pairs = differences(texts.aligned, texts.unaligned, paired=True).var(axis=0).sum()
    independent = texts.aligned.var(axis=0).sum() + texts.unaligned.var(axis=0).sum()
    return float(1 - of_pairs / independent) if independent else 0.0


def _of_features(texts: ContrastTexts, route: _SaeRoute) -> tuple[float, float]:
    """Coherence of the chosen features' directions, and the texts that they fire on."""
    try:
        chosen, _ = route.chosen(texts)
    except AlignmentError:
        return float("nan"), float("nan")
    if len(chosen) < route.rank:
        return float("nan"), float("nan")
    rows = route.decoder[chosen].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosines = np.abs(rows @ rows.T)
    np.fill_diagonal(cosines, 0)
    sides = (texts.aligned_activations, texts.unaligned_activations)
    fires = sum(np.count_nonzero(side[:, chosen], axis=0) for side in sides)
    return float(cosines.max(axis=1).mean()), float(np.median(fires))
