"""Scores of planted activations, by hand; honesty of the cross-fitting on noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

from safesail.concepts import ConceptSet, ContrastPair
from safesail.ranking import _score
from safesail.ranking._design import RESAMPLES, PairDesign
from safesail.ranking._score import (
    FEW_PAIRS_WARNING,
    NONE_CALLED_WARNING,
    ConceptScore,
    score_candidate,
)
from safesail.study import RankingSettings

SETTINGS = RankingSettings()
LOW = 0.05


def concepts(counts: dict[str, int]) -> ConceptSet:
    return ConceptSet(
        ContrastPair(name, f"{name} {n} yes", f"{name} {n} no")
        for name, count in counts.items()
        for n in range(count)
    )


def numbers(design: PairDesign, concept: str) -> tuple[NDArray, NDArray]:
    """Text numbers of a concept's positives and of their twins."""
    own = design.concepts.pair_numbers(concept)
    return design.positive[own], design.negative[own]


def by_concept(
    pooled: NDArray, design: PairDesign, settings: RankingSettings = SETTINGS, q999: float = 1.0
) -> dict[str, ConceptScore]:
    scale = np.full(pooled.shape[1], q999, dtype=np.float32)
    found = score_candidate(pooled.astype(np.float32), scale, design, settings)
    return {score.role.concept: score for score in found}


@pytest.fixture(scope="module")
def planted() -> tuple[PairDesign, dict[str, ConceptScore]]:
    """Three concepts of 24, 24 and 9 pairs (fraud has a child of 12), ten features.

    0 is silent; 1 fires alike on everything; 2 is small noise below the margin; 3 detects
    violence; 4 detects a third of violence; 5 detects violence and fraud; 6 fires on violence's
    twins; 7 detects fraud/scam; 8, 9 silent.
    """
    design = PairDesign.of(
        concepts({"violence": 24, "fraud": 12, "fraud/scam": 12, "drugs": 9}), seed=0
    )
    pooled = np.zeros((len(design.texts), 10), dtype=np.float32)
    violence, violence_twins = numbers(design, "violence")
    fraud, _ = numbers(design, "fraud")
    scam, _ = numbers(design, "fraud/scam")
    pooled[:, 1] = 1
    pooled[:, 2] = LOW * np.random.default_rng(0).random(len(pooled))
    pooled[violence, 3] = 1
    pooled[violence[:8], 4] = 1
    pooled[violence, 5] = pooled[fraud, 5] = 1
    pooled[violence_twins, 6] = 1
    pooled[scam, 7] = 1
    return design, by_concept(pooled, design)


def chosen(score: ConceptScore) -> dict[int, dict[str, Any]]:
    return {int(row["feature"]): row for row in score.chosen}


def counts(score: ConceptScore) -> list[int]:
    return [score.distinction.count(level) for level in (0.3, 0.5, 0.7, 0.9)]


def test_shares_and_counts_by_hand(planted: tuple[PairDesign, dict[str, ConceptScore]]) -> None:
    _, scores = planted
    violence, fraud, scam = scores["violence"], scores["fraud"], scores["fraud/scam"]
    assert [len(scores[name].role.pairs) for name in scores] == [24, 24, 12, 9]
    # f of violence: features 3 and 5 are 1, feature 4 is 1/3, all others 0.
    assert violence.distinction.i_cdf == pytest.approx((1 + 1 + 1 / 3) / 10)
    assert counts(violence) == [3, 2, 2, 2]
    # The parent owns its child's pairs: feature 7 has f = 12/24 there and 1 on the child.
    assert counts(fraud) == [2, 2, 1, 1]
    assert fraud.distinction.i_cdf == pytest.approx((1 + 0.5) / 10)
    assert counts(scam) == [2, 2, 2, 2]
    assert counts(scores["drugs"]) == [0, 0, 0, 0]


def test_separating_features_by_hand(planted: tuple[PairDesign, dict[str, ConceptScore]]) -> None:
    _, scores = planted
    # 3 detects violence alone; 5 has 24 hits and 24 false alarms; 4 reaches a third.
    assert scores["violence"].separating.count == 1
    assert scores["violence"].separating.interval == (1, 1)
    # Twelve pairs of one template are one piece of evidence: half of all swaps change nothing.
    assert scores["fraud/scam"].separating.by_chance == pytest.approx(0.5, abs=0.2)
    assert np.isnan(scores["fraud/scam"].separating.interval).all()
    assert scores["drugs"].separating.count == 0
    assert scores["drugs"].separating.interval == (0, 0)


def test_chosen_features(planted: tuple[PairDesign, dict[str, ConceptScore]]) -> None:
    _, scores = planted
    violence = chosen(scores["violence"])
    assert next(iter(violence)) == 3
    assert set(violence) == {3, 4, 5}
    assert all(row["called"] for row in violence.values())
    assert violence[3]["separation"] == pytest.approx(1)
    assert violence[3]["f"] == 1
    interval = binomtest(8, 24).proportion_ci(method="wilson")
    assert (violence[4]["f_low"], violence[4]["f_high"]) == pytest.approx(
        (interval.low, interval.high)
    )
    # The third smallest p of four: feature 6 is tested too.
    assert violence[4]["q_value"] == pytest.approx(0.5**8 * 4 / 3)
    assert NONE_CALLED_WARNING not in scores["violence"].warnings
    assert set(chosen(scores["fraud/scam"])) == {5, 7}


def test_separation_counts_other_concepts_as_negatives(
    planted: tuple[PairDesign, dict[str, ConceptScore]],
) -> None:
    design, scores = planted
    violence = chosen(scores["violence"])
    # 24 violence texts among their twins and both texts of 24 fraud and 9 drugs pairs, which
    # together count eight times as much as the violence texts; 5 fires on fraud's positives too.
    truth = [1] * 24 + [0] * (24 + 48 + 18)
    fires = [1] * 24 + [0] * 24 + [1] * 24 + [0] * (24 + 18)
    weight = [1] * 48 + [8 * 24 / 66] * 66
    expected = average_precision_score(truth, fires, sample_weight=weight)
    assert violence[5]["separation"] == pytest.approx(expected)
    assert all(score.role.chance == pytest.approx(0.1) for score in scores.values())
    # On its own branch nothing counts against it: scam texts are no negatives of fraud.
    fraud, scam = design.roles["fraud"], design.roles["fraud/scam"]
    assert (fraud.positive.sum(), (fraud.weight > 0).sum()) == (24, 48 + 48 + 18)
    assert (scam.positive.sum(), (scam.weight > 0).sum()) == (12, 24 + 48 + 18)


def test_specificity_is_against_other_branches(
    planted: tuple[PairDesign, dict[str, ConceptScore]],
) -> None:
    _, scores = planted
    violence, scam = chosen(scores["violence"]), chosen(scores["fraud/scam"])
    assert violence[3]["specificity"] == 1
    assert violence[5]["specificity"] == 0
    assert violence[4]["specificity"] == pytest.approx(1 / 3)
    assert scam[7]["specificity"] == 1  # its parent's f of 1/2 does not count against it


def test_a_detector_is_found_and_judged_on_the_other_half(
    planted: tuple[PairDesign, dict[str, ConceptScore]],
) -> None:
    _, scores = planted
    violence, drugs = scores["violence"], scores["drugs"]
    assert violence.separation.best == pytest.approx(1)
    assert violence.separation.auroc == pytest.approx(1)
    assert violence.separation.f1 == pytest.approx(1)
    # No resample holds a mistake: how little that proves is what 24 pairs may hide.
    low, high = violence.separation.interval
    assert 0.85 < low < 0.99
    assert high == 1
    assert violence.separation.top10 < 1
    assert violence.specificity == 1
    # No feature tells drugs: as good as an uninformed choice, in every half and resample.
    assert drugs.separation.best == pytest.approx(0.1, abs=0.05)
    assert drugs.called_features == 0
    assert drugs.least_callable == pytest.approx(5 / 9)  # nothing is tested: five wins would do
    assert NONE_CALLED_WARNING in drugs.warnings
    assert FEW_PAIRS_WARNING in drugs.warnings
    assert FEW_PAIRS_WARNING not in violence.warnings
    assert len(violence.separation.resampled) == RESAMPLES


@pytest.mark.parametrize(("margin", "f"), [(0.0, 1.0), (0.4, 1.0), (0.5, 0.0), (0.6, 0.0)])
def test_the_margin_is_a_share_of_q999_and_must_be_exceeded(margin: float, f: float) -> None:
    design = PairDesign.of(concepts({"a": 10}), seed=0)
    pooled = np.zeros((len(design.texts), 1))
    pooled[design.positive, 0] = 2.0
    pooled[design.negative, 0] = 1.0
    score = by_concept(pooled, design, RankingSettings(margin=margin), q999=2.0)["a"]
    assert score.distinction.i_cdf == f


def test_at_most_the_asked_number_is_chosen_and_at_least_ten_are_shown() -> None:
    design = PairDesign.of(concepts({"a": 30, "b": 30}), seed=0)
    generator = np.random.default_rng(2)
    pooled = np.zeros((len(design.texts), 40))
    positive, _ = numbers(design, "a")
    pooled[positive, :25] = 1 + generator.random((30, 25))
    settings = RankingSettings(features_per_concept=7)
    assert len(by_concept(pooled, design, settings)["a"].chosen) == 7
    assert len(by_concept(pooled, design)["a"].chosen) == 25
    noise = generator.random((len(design.texts), 400))
    few = by_concept(noise, design, RankingSettings(margin=0))["a"]
    assert len(few.chosen) == max(10, few.called_features)
    separations = [row["separation"] for row in few.chosen if not row["called"]]
    assert separations == sorted(separations, reverse=True)


def test_noise_has_the_separation_of_chance_though_the_best_in_sample_is_far_above() -> None:
    best, top, chance, in_sample, probe, auroc, specificity = ([] for _ in range(7))
    for seed in range(10):
        design = PairDesign.of(concepts({"a": 24, "b": 24, "c": 24}), seed)
        pooled = np.random.default_rng(seed + 1_000).random((len(design.texts), 400))
        for score in by_concept(pooled, design, RankingSettings(margin=0)).values():
            best.append(score.separation.best)
            top.append(score.separation.top10)
            chance.append(score.role.chance)
            probe.append(score.separation.probe5)
            auroc.append(score.separation.auroc)
            specificity.append(score.specificity)
            in_sample.append(max(row["separation"] for row in score.chosen))
    # A random order has a mean average precision a little above the share of positives.
    order = np.random.default_rng(0).random((2_000, 72))
    positives = np.repeat([True, False, False, False, False, False], 12)
    weight = np.repeat([1, 1, 2, 2, 2, 2], 12)  # four texts of others count as eight
    random = np.mean(
        [average_precision_score(positives, row, sample_weight=weight) for row in order]
    )
    assert np.mean(best) == pytest.approx(random, abs=0.03)
    assert np.mean(top) == pytest.approx(random, abs=0.02)
    assert np.mean(probe) == pytest.approx(random, abs=0.03)
    assert np.mean(auroc) == pytest.approx(0.5, abs=0.03)
    assert np.mean(specificity) < 0.05
    assert min(in_sample) > random + 0.08
    assert np.mean(chance) == pytest.approx(0.1)


def test_pairs_with_one_twin_are_one_piece_of_evidence() -> None:
    """Thirty pairs that share their twin: a twin that happens to be low proves nothing."""
    shared = [ContrastPair("a", f"yes {n}", "the twin") for n in range(30)]
    design = PairDesign.of(ConceptSet(shared), seed=0)
    pooled = np.ones((len(design.texts), 3))
    pooled[design.negative] = 0
    score = by_concept(pooled, design)["a"]
    assert score.distinction.i_cdf == 1
    assert score.called_features == 0
    assert np.isnan(score.separation.best)  # one cluster cannot be halved
    assert np.isnan([*score.separation.interval, *score.i_cdf_interval]).all()


@pytest.mark.parametrize("children", [1, 20, 40])
def test_a_parents_intervals_do_not_hang_on_its_children(children: int) -> None:
    """The same forty pairs as one concept, or as children of two or one pair each."""

    def score(children: int) -> ConceptScore:
        pairs = [
            ContrastPair(f"a/{n % children}" if children > 1 else "a", f"yes {n}", f"no {n}")
            for n in range(40)
        ]
        design = PairDesign.of(ConceptSet(pairs), seed=0)
        pooled = np.random.default_rng(2).random((len(design.texts), 30))
        return by_concept(pooled, design)["a"]

    one, many = score(1), score(children)
    assert many.distinction.i_cdf == one.distinction.i_cdf
    widths = [high - low for low, high in (one.i_cdf_interval, many.i_cdf_interval)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_means_over_tokens_are_compared_at_their_own_scale() -> None:
    """Far below what a single token reaches, as means are: the feature is called all the same."""
    design = PairDesign.of(concepts({"a": 20, "b": 20}), seed=0)
    pooled = np.zeros((len(design.texts), 2))
    pooled[design.roles["a"].positive, 0] = 0.1
    pooled[:, 1] = 0.01
    mean = RankingSettings(pooling="mean")
    assert by_concept(pooled, design, mean)["a"].called_features == 1
    assert by_concept(pooled, design)["a"].called_features == 0


@pytest.mark.proof
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("shared", [1, 4])
def test_false_calls_on_noise_keep_their_rate(margin: float, shared: int) -> None:
    """All features are noise, so any call is false: the rate of such runs is the FDR's level.

    Also where pairs share a twin, and where activations are sparse and q999 sets the margin.
    """
    generator = np.random.default_rng(0)
    runs, rate = 400, 0.05
    pairs = [
        ContrastPair("a", f"yes {n}", f"no {n // shared}") for n in range(40 if shared == 1 else 80)
    ]
    design = PairDesign.of(ConceptSet(pairs), seed=0)
    settings = RankingSettings(margin=margin, false_discovery_rate=rate)
    false_calls = 0
    for _ in range(runs):
        shape = (len(design.texts), 300)
        pooled = generator.exponential(size=shape) * (generator.random(shape) < 0.7)
        q999 = np.quantile(pooled, 0.9, axis=0).astype(np.float32)
        (score,) = score_candidate(pooled.astype(np.float32), q999, design, settings)
        false_calls += score.called_features > 0
    assert false_calls / runs <= rate + 3 * np.sqrt(rate * (1 - rate) / runs)


def test_sums_in_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    design = PairDesign.of(concepts({"a": 20, "b": 20}), seed=0)
    pooled = np.random.default_rng(3).random((len(design.texts), 37))
    whole = by_concept(pooled, design)["a"]
    monkeypatch.setattr(_score, "_BLOCK", 8)
    blocks = by_concept(pooled, design)["a"]
    assert whole.chosen == blocks.chosen
    assert (whole.distinction.f == blocks.distinction.f).all()


def test_a_pair_whose_length_tells_is_reported_by_its_row() -> None:
    pairs = [
        ContrastPair("a", f"a longer text {n} about it", f"another short one {n}")
        for n in range(11)
    ]
    long = " ".join(f"word{n}" for n in range(20))
    pairs.append(ContrastPair("a", long, "short one here", "pairs.jsonl, line 12"))
    design = PairDesign.of(ConceptSet(pairs), seed=0)
    score = by_concept(np.random.default_rng(0).random((len(design.texts), 5)), design)["a"]
    (warning,) = [text for text in score.warnings if "length" in text]
    assert "1 of 12 pairs" in warning
    assert "pairs.jsonl, line 12" in warning
