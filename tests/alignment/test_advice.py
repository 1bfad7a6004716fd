"""Facts measured without the truth, and the route that is advised on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

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
