"""Facts measured without the truth, and the route that is advised on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import permutation_test

from safesail.alignment import (
    ContrastTexts,
    Facts,
    advise,
    covariance_difference,
    measure_facts,
    projection_distance,
    raw_difference_pca,
)
from safesail.errors import AlignmentError

RANK, DIMENSIONS, CONCEPTS = 3, 32, 96


@dataclass(frozen=True)
class World:
    texts: ContrastTexts
    directions: NDArray[np.float64]
    truth: NDArray[np.float64]


def world(texts: int, *, paired: bool, shift: float = 0.4, seed: int = 1) -> World:
    """Concepts in superposition, RANK of which fire more often on the aligned side."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((CONCEPTS, DIMENSIONS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    shape = (2, texts, CONCEPTS)
    codes = generator.uniform(0.5, 1.5, shape) * (generator.random(shape) < 0.05)
    if paired:
        codes[1] = codes[0]
    codes[:, :, :RANK] = generator.uniform(0.5, 1.5, (2, texts, RANK))
    codes[0, :, :RANK] *= generator.random((texts, RANK)) < 0.05 + shift
    codes[1, :, :RANK] *= generator.random((texts, RANK)) < 0.05
    hidden = codes @ directions + 0.01 * generator.standard_normal((2, texts, DIMENSIONS))
    return World(
        ContrastTexts(hidden[0], hidden[1], codes[0], codes[1], paired),
        directions,
        np.linalg.qr(directions[:RANK].T)[0],
    )


def useless(seed: int = 9) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((CONCEPTS, DIMENSIONS))


def anisotropic(texts: int, *, paired: bool, shift: float, seed: int) -> World:
    """Texts of one population whose spectrum falls as k^-1.5, of which one side is shifted.

    In RANK random directions a coin for each text adds `shift`; the largest standard deviation of
    the population is 1. Texts of a pair are half as far apart as the population is wide.
    """
    generator = np.random.default_rng(seed)
    scales = np.arange(1, DIMENSIONS + 1) ** -0.75
    axes = np.linalg.qr(generator.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    hidden = (generator.standard_normal((2, texts, DIMENSIONS)) * scales) @ axes
    if paired:
        hidden[1] = hidden[0] + 0.5 * hidden[1]
    truth = np.linalg.qr(generator.standard_normal((DIMENSIONS, RANK)))[0]
    hidden[0] += shift * (generator.random((texts, RANK)) < 0.5) @ truth.T
    directions = generator.standard_normal((CONCEPTS, DIMENSIONS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.maximum(hidden @ directions.T - 0.2, 0)
    return World(ContrastTexts(hidden[0], hidden[1], codes[0], codes[1], paired), directions, truth)


def facts_of(found: World, seed: int = 0) -> Facts:
    return measure_facts(found.texts, found.directions, RANK, seed=seed)


def test_few_unpaired_texts_and_a_good_dictionary_call_for_the_sae() -> None:
    found = world(120, paired=False)
    advice = advise(measure_facts(found.texts, found.directions, RANK, fvu=0.1, l0=4.8))
    assert advice.route == "sae"
    assert advice.reliable
    assert any("no pairs" in reason for reason in advice.reasons)
    assert any("5.00% of the SAE's features" in reason for reason in advice.reasons)


def test_minimal_pairs_call_for_raw_differences_whatever_the_sae() -> None:
    found = world(300, paired=True)
    facts = measure_facts(found.texts, useless(), RANK)
    advice = advise(facts)
    assert facts.pairing is not None
    assert facts.pairing > 0.7
    assert advice.route == "raw_difference_pca"
    assert advice.reliable
    basis = raw_difference_pca(found.texts.aligned, found.texts.unaligned, RANK, paired=True).basis
    true = projection_distance(basis, found.truth)
    assert advice.error["raw_difference_pca"] == pytest.approx(true, abs=0.05)


def test_a_poor_dictionary_and_many_unpaired_texts_call_for_the_covariance_difference() -> None:
    found = world(6000, paired=False, shift=0.5)
    facts = measure_facts(found.texts, useless(), RANK)
    advice = advise(facts)
    # The wrong span comes out again and again: stability alone would have chosen it.
    assert facts.stability["sae"] == max(facts.stability.values())
    assert advice.route == "covariance_difference"
    assert advice.reliable
    basis = covariance_difference(found.texts.aligned, found.texts.unaligned, RANK).basis
    true = projection_distance(basis, found.truth)
    assert advice.error["covariance_difference"] == pytest.approx(true, abs=0.15)
    assert advice.captured["sae"] < 0.3


def test_where_nothing_shifts_no_route_is_called_reliable() -> None:
    found = world(400, paired=False, shift=0.0)
    advice = advise(measure_facts(found.texts, useless(), RANK))
    assert advice.captured["covariance_difference"] < 0.5
    assert not advice.reliable
    assert any("no route holds half" in reason for reason in advice.reasons)


@pytest.mark.parametrize("paired", [False, True])
def test_halves_of_one_population_are_not_reliable(paired: bool) -> None:
    facts = [facts_of(anisotropic(100, paired=paired, shift=0, seed=seed)) for seed in range(100)]
    advice = [advise(one) for one in facts]
    # Large variance that both halves share: by the estimated share alone all would be reliable.
    assert sum(one.captured[one.route] >= 0.5 for one in advice) > 95
    # The test's level is .01: of 100, more than 4 would come about once in 300 such trials.
    assert sum(one.reliable for one in advice) <= 4
    for fact, one in zip(facts, advice, strict=True):
        told = any("sides are not known to differ" in reason for reason in one.reasons)
        assert told == (fact.p_value > 0.01)
    # And p is what a p should be: .2 or less in a fifth of the trials, within 3 standard errors.
    assert 0.08 < np.mean([one.p_value <= 0.2 for one in facts]) < 0.32


@pytest.mark.parametrize("paired", [False, True])
def test_a_shift_of_such_a_population_is_reliable(paired: bool) -> None:
    for seed in range(20):
        found = anisotropic(100, paired=paired, shift=1.5, seed=seed)
        facts = facts_of(found)
        assert facts.p_value == 1 / 200
        assert advise(facts).reliable


@pytest.mark.parametrize("paired", [False, True])
def test_p_is_that_of_scipys_exact_permutation_test(paired: bool) -> None:
    errors = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        scales = np.array([100.0, 1.0, 0.01])
        rows = generator.standard_normal((12, 3)) * scales
        rows[:6] += 0.07 * seed * scales
        sides = (np.arange(6), np.arange(6, 12)) if paired else (np.arange(7), np.arange(7, 12))

        def distance(
            first: NDArray[np.int64], second: NDArray[np.int64], rows: NDArray[np.float64] = rows
        ) -> float:
            if paired:
                apart = rows[first] - rows[second]
                return float(np.sum(apart.mean(axis=0) ** 2 / np.mean(apart**2, axis=0)))
            apart = rows[first].mean(axis=0) - rows[second].mean(axis=0)
            return float(np.sum(apart**2 / rows.var(axis=0)))

        exact = permutation_test(
            sides,
            distance,
            permutation_type="samples" if paired else "independent",
            alternative="greater",
            n_resamples=np.inf,
        ).pvalue
        first, second = rows[sides[0]], rows[sides[1]]
        texts = ContrastTexts(first, second, np.abs(first), np.abs(second), paired)
        errors.append(measure_facts(texts, np.eye(3), 1, seed=seed).p_value - exact)
    # The largest standard error of one of 199 random permutations is .035.
    assert np.abs(errors).max() < 0.12
    assert abs(np.mean(errors)) < 0.035


def test_shuffled_labels_are_dealt_to_states_and_activations_alike() -> None:
    generator = np.random.default_rng(3)
    aligned, unaligned = generator.random((9, 4)), generator.random((7, 4))
    dealt = ContrastTexts(aligned, unaligned, 2 * aligned, 2 * unaligned, paired=False).shuffled(5)
    assert len(dealt.aligned) == 9
    assert np.array_equal(dealt.aligned_activations, 2 * dealt.aligned)
    assert np.array_equal(dealt.unaligned_activations, 2 * dealt.unaligned)
    assert not np.isin(dealt.aligned, aligned).all()
    pairs = ContrastTexts(aligned[:7], unaligned, aligned[:7], unaligned, paired=True)
    dealt = pairs.shuffled(5)
    swapped = (dealt.aligned == unaligned).all(axis=1)
    assert 0 < swapped.sum() < 7
    assert np.array_equal(dealt.unaligned[~swapped], unaligned[~swapped])
    assert np.array_equal(dealt.unaligned[swapped], aligned[:7][swapped])


def test_halves_share_with_shuffled_labels_what_a_population_without_sides_does() -> None:
    nothing = [facts_of(anisotropic(100, paired=False, shift=0, seed=seed)) for seed in range(20)]
    for route in ("sae", "covariance_difference"):
        real = np.array([one.stability[route] for one in nothing])
        shuffled = np.array([one.shuffled[route] for one in nothing])
        assert shuffled.mean() == pytest.approx(real.mean(), abs=0.07)
        assert shuffled.mean() > 2 * RANK / DIMENSIONS  # far from what independent spans share
    assert set(nothing[0].shuffled) == {"sae", "covariance_difference"}


def test_facts_are_what_they_say() -> None:
    found = world(200, paired=True)
    texts = found.texts
    facts = measure_facts(texts, found.directions, RANK, fvu=0.25, l0=4.8)
    of_pairs = np.trace(np.cov((texts.aligned - texts.unaligned).T))
    apart = np.trace(np.cov(texts.aligned.T)) + np.trace(np.cov(texts.unaligned.T))
    assert facts.pairing == pytest.approx(1 - of_pairs / apart)
    assert facts.density == pytest.approx(4.8 / CONCEPTS)
    assert (facts.rank, facts.d_model, facts.texts, facts.fvu) == (RANK, DIMENSIONS, 200, 0.25)
    assert facts.texts_per_dimension == 200 / DIMENSIONS
    assert set(facts.agreement) == {
        ("sae", "raw_difference_pca"),
        ("sae", "covariance_difference"),
        ("raw_difference_pca", "covariance_difference"),
    }
    # All twelve features that the SAE route takes: each one's nearest other.
    shift = np.abs(texts.aligned_activations.mean(0) - texts.unaligned_activations.mean(0))
    rows = found.directions[np.argsort(-shift)[: min(4 * RANK, np.count_nonzero(shift))]]
    chosen = np.argsort(-shift)[: len(rows)]
    both = np.concatenate([texts.aligned_activations, texts.unaligned_activations])
    assert facts.texts_per_feature == np.median((both[:, chosen] != 0).sum(axis=0))
    cosines = np.abs(rows @ rows.T) - np.eye(len(rows))
    assert facts.coherence == pytest.approx(cosines.max(axis=1).mean())
    assert measure_facts(texts, found.directions, RANK, fvu=0.25, l0=4.8) == facts


def test_a_silent_sae_leaves_the_direct_routes() -> None:
    found = world(300, paired=True)
    silent = np.zeros_like(found.texts.aligned_activations)
    silent[:, 0] = 1.0
    texts = replace(found.texts, aligned_activations=silent, unaligned_activations=silent * 0.5)
    facts = measure_facts(texts, found.directions, RANK)
    assert facts.stability["sae"] == 0
    assert advise(facts).route == "raw_difference_pca"
    assert advise(facts).captured["sae"] == 0


def test_the_rules_as_documented() -> None:
    facts = Facts(
        rank=2,
        d_model=20,
        texts=100,
        pairing=0.69,
        coherence=0.2,
        texts_per_feature=12.0,
        density=None,
        fvu=None,
        stability={"sae": 1.0, "raw_difference_pca": 1.0, "covariance_difference": 0.325},
        shuffled={"sae": 0.2, "covariance_difference": 0.324},
        p_value=0.01,
        agreement={
            ("sae", "raw_difference_pca"): 0.1,
            ("sae", "covariance_difference"): 0.46,
            ("raw_difference_pca", "covariance_difference"): 0.1,
        },
    )
    # Beyond chance, 0.1, halves share 0.25: each holds 0.5, both together 2/3.
    advice = advise(facts)
    assert advice.captured["covariance_difference"] == pytest.approx(2 / 3)
    assert advice.captured["sae"] == pytest.approx(0.4 / (2 / 3))
    assert advice.captured["raw_difference_pca"] == pytest.approx(0)
    assert advice.route == "covariance_difference"
    assert advice.error["covariance_difference"] == pytest.approx((4 / 3) ** 0.5)
    # With a little more pairing the pairs' differences are the reference, and they are stable.
    assert advise(replace(facts, pairing=0.7)).route == "raw_difference_pca"
    assert advice.reliable
    assert sum("never on a language model" in reason for reason in advice.reasons) == 1


def test_reliable_needs_sides_that_differ_and_more_stability_than_shuffled_labels_give() -> None:
    facts = facts_of(world(120, paired=False))
    assert advise(facts).route == "sae"
    assert advise(facts).reliable
    alike = advise(replace(facts, p_value=0.015))
    assert not alike.reliable
    assert "p 0.015 where 0.01 or less is asked for" in alike.reasons[-1]
    stable = facts.stability["sae"]
    chance = advise(replace(facts, shuffled={**facts.shuffled, "sae": stable}))
    assert not chance.reliable
    assert "SAE route is no more stable than with shuffled labels" in chance.reasons[-1]
    assert chance.reasons[-1].count(f"{stable:.2f}") == 2
    # Of another route than the one advised it does not matter.
    other = {**facts.shuffled, "covariance_difference": 1.0}
    assert advise(replace(facts, shuffled=other)).reliable


def test_what_cannot_be_measured_is_refused() -> None:
    found = world(20, paired=True)
    texts = found.texts
    few = ContrastTexts(
        texts.aligned[:3],
        texts.unaligned[:3],
        texts.aligned_activations[:3],
        texts.unaligned_activations[:3],
        paired=True,
    )
    with pytest.raises(AlignmentError, match="3 texts of a side"):
        measure_facts(few, found.directions, RANK)
    with pytest.raises(AlignmentError, match="rank 32 in 32 dimensions"):
        measure_facts(texts, found.directions, DIMENSIONS)
    with pytest.raises(ValueError, match="20 hidden states and 19 activations"):
        replace(texts, aligned_activations=texts.aligned_activations[:19])
