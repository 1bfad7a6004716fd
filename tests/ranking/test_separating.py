"""Counting separating features: what chance takes off, one text in ten, resamples, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from safesail.concepts import ConceptSet, ContrastPair
from safesail.ranking._design import OTHER_TEXTS, SWAPS, PairDesign, weigh
from safesail.ranking._separating import (
    GOOD,
    SeparatingFeatures,
    centred,
    count_interval,
    separating_features,
)
from safesail.ranking._sorted_scores import SortedScores


def design_of(pairs: int, concepts: int = 1, share: int = 1) -> PairDesign:
    """So many pairs of each concept; so many pairs at a time share their twin."""
    return PairDesign.of(
        ConceptSet(
            ContrastPair(f"c{c}", f"c{c} p{n} x{n}", f"c{c} t{n // share} y{n // share}")
            for c in range(concepts)
            for n in range(pairs)
        ),
        seed=0,
    )


def counted(pooled: NDArray, design: PairDesign, concept: str = "c0") -> SeparatingFeatures:
    pooled = pooled.astype(np.float32)
    return separating_features(pooled, SortedScores.of(pooled), design.roles[concept], design)


def noise(
    generator: np.random.Generator, design: PairDesign, features: int, share: float
) -> NDArray:
    shape = (len(design.texts), features)
    return generator.exponential(size=shape) * (generator.random(shape) < share)


@given(st.lists(st.sampled_from(["positive", "twin", "other", "none"]), min_size=1, max_size=40))
@settings(deadline=None)
def test_one_text_in_ten_carries_the_concept(kinds: list[str]) -> None:
    positive, twin, other = (
        np.array([k == of for k in kinds]) for of in ("positive", "twin", "other")
    )
    weight = weigh(positive, twin, other)
    assert (weight[positive] == 1).all()
    assert (weight[np.array(kinds) == "none"] == 0).all()
    if positive.any() and (twin.any() or other.any()):
        assert weight[positive].sum() / weight.sum() == pytest.approx(1 / (2 + OTHER_TEXTS))
    if twin.any() and other.any():
        assert weight[other].sum() == pytest.approx(OTHER_TEXTS * weight[twin].sum())


@pytest.mark.parametrize("share", [1, 4])
def test_silent_features_separate_nothing(share: int) -> None:
    """Also in a study of one concept where texts share twins, and at the width of large SAEs."""
    design = design_of(60, share=share)
    found = counted(np.zeros((len(design.texts), 65_536)), design)
    assert (found.count, found.by_chance, found.interval) == (0, 0, (0, 0))


def test_a_pair_that_is_another_ones_reverse_tells_nothing() -> None:
    pairs = [ContrastPair("a", "one", "another"), ContrastPair("a", "another", "one")]
    design = PairDesign.of(ConceptSet(pairs), seed=0)
    assert counted(np.ones((2, 5)), design, "a").count == 0


def test_few_noisy_pairs_count_for_nothing() -> None:
    """Five pairs of one concept and a dense SAE: some of its noise passes the bar, by chance."""
    design = design_of(5)
    generator = np.random.default_rng(0)
    found = [counted(noise(generator, design, 2_000, 0.5), design) for _ in range(30)]
    expected = np.mean([one.by_chance for one in found])
    assert expected > 2
    assert np.mean([one.count for one in found]) < expected / 3


def test_what_chance_gives_is_the_mean_over_swapped_pairs() -> None:
    """Independent source: scikit-learn on the texts with swapped labels."""
    design = design_of(8)
    pooled = noise(np.random.default_rng(3), design, 60, 0.5)
    role = design.roles["c0"]
    counts = []
    for swap in design.swaps:
        exchanged = swap[design.cluster_of_texts]
        truth = role.positive ^ exchanged
        weight = np.where(truth, 1.0, 1.0 + OTHER_TEXTS)
        precision = [average_precision_score(truth, one, sample_weight=weight) for one in pooled.T]
        counts.append(int((np.array(precision) >= GOOD).sum()))
    assert len(counts) == SWAPS
    assert counted(pooled, design).by_chance == pytest.approx(np.mean(counts))


def test_one_piece_of_evidence_has_no_interval() -> None:
    design = design_of(12, share=12)
    pooled = np.zeros((len(design.texts), 3))
    pooled[design.positive, 0] = 1
    assert np.isnan(counted(pooled, design).interval).all()


def test_resamples_are_centred_by_whole_numbers() -> None:
    resampled = np.array([3.0, 5.0, 6.0, 6.0])
    assert centred(2, resampled).tolist() == [0, 2, 3, 3]  # mean 5: three less
    assert centred(5, resampled).tolist() == resampled.tolist()
    assert centred(0, np.array([1.0, 3.0])).tolist() == [0, 1]
    low, high = count_interval(2, resampled)
    assert low == 0  # 2 * 2 - 6 is below
    assert high == pytest.approx(3)


def weak_and_strong(
    design: PairDesign, strong: int, weak: int, generator: np.random.Generator
) -> NDArray:
    """Of each concept: features that fire on nearly all its texts, and on six in ten of them."""
    columns = []
    for role in design.roles.values():
        for place in range(strong + weak):
            column = generator.exponential(size=len(design.texts)) / 2
            column *= generator.random(len(column)) < 0.02
            own = np.flatnonzero(role.positive)
            own = own[generator.random(len(own)) < (0.97 if place < strong else 0.6)]
            column[own] = 1 + generator.exponential(size=len(own))
            columns.append(column)
    return np.array(columns).T


@pytest.mark.proof
def test_intervals_of_counts_cover_also_where_many_features_are_just_too_weak() -> None:
    """Twenty features of an average precision of .64 beside two good ones, 20 and 40 pairs."""
    large = design_of(2_000, concepts=2)
    pooled = weak_and_strong(large, 2, 20, np.random.default_rng(9))
    weight = large.roles["c0"].weight
    precision = SortedScores.of(pooled).average_precision(
        large.roles["c0"].positive * weight, weight
    )
    truth = int((precision >= GOOD).sum())
    assert truth == 2
    assert 0.6 < precision[2:22].mean() < 0.7
    for pairs, least in ((20, 0.85), (40, 0.92)):
        design = design_of(pairs, concepts=8)
        covered = []
        for seed in range(25):
            drawn = weak_and_strong(design, 2, 20, np.random.default_rng(seed))
            for concept in design.roles:
                low, high = counted(drawn, design, concept).interval
                covered.append(low <= truth <= high)
        assert np.mean(covered) >= least
