"""Intervals against SciPy, published tables, and simulated worlds whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import expit

from safesail.alignment._intervals import (
    Part,
    mean,
    mean_difference,
    share,
    share_difference,
    share_sum,
)


def table(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two systems' answers [1, prompts], by how many prompts each gets right."""
    one = [1] * (both + first) + [0] * (second + neither)
    two = [1] * both + [0] * first + [1] * second + [0] * neither
    return np.array([one], float), np.array([two], float)


@given(st.integers(1, 80), st.floats(0, 1))
def test_shares_of_one_seed_have_wilsons_interval(count: int, level: float) -> None:
    hits = round(level * count)
    found = share(np.array([[1.0] * hits + [0.0] * (count - hits)]))
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table II, method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        # Altman et al., Statistics with Confidence (2000), page 52.
        ((14, 5, 0, 22), 0.011, 0.226),
    ],
)
def test_paired_shares_have_newcombes_interval(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    found = share_difference(*table(*cells))
    assert found.value == pytest.approx((cells[1] - cells[2]) / sum(cells))
    places = 4 if low == 0.0569 else 3
    assert (round(found.low, places), round(found.high, places)) == (low, high)


@given(st.lists(st.integers(0, 25), min_size=4, max_size=4).filter(any))
def test_differences_turn_round(cells: list[int]) -> None:
    one, two = table(*cells)
    there, back = share_difference(one, two), share_difference(two, one)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low), abs=1e-9
    )
    assert there.low <= there.value <= there.high
    assert there.high > there.low


def test_systems_that_agree_still_differ_by_something_unknown() -> None:
    found = share_difference(*table(30, 0, 0, 0))
    assert found.value == 0
    assert found.low < -0.05 < 0.05 < found.high


def test_means_of_one_seed_have_students_interval() -> None:
    generator = np.random.default_rng(0)
    one, two = generator.normal(size=(2, 1, 30))
    plain = stats.ttest_1samp(one[0], 0).confidence_interval()
    assert (mean(one).low, mean(one).high) == pytest.approx(tuple(plain))
    paired = stats.ttest_rel(one[0], two[0]).confidence_interval()
    found = mean_difference(one, two)
    assert (found.low, found.high) == pytest.approx(tuple(paired))


def test_crossed_variance_is_that_of_the_analysis_of_variance() -> None:
    """Mean squares by statsmodels' table of sums of squares."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    generator = np.random.default_rng(3)
    # Seeds that hardly differ: where they do, their own t is the wider one.
    values = (
        0.1 * generator.normal(size=(4, 1))
        + generator.normal(size=12)
        + generator.normal(size=(4, 12))
    )
    seeds, prompts = np.indices(values.shape)
    frame = pd.DataFrame({"y": values.ravel(), "seed": seeds.ravel(), "prompt": prompts.ravel()})
    rows = anova_lm(ols("y ~ C(seed) + C(prompt)", frame).fit())
    squares = rows["mean_sq"].to_numpy()
    variance = (squares[0] + squares[1] - squares[2]) / values.size
    below = sum(s**2 / d for s, d in zip(squares, rows["df"], strict=True)) / values.size**2
    half = stats.t.ppf(0.975, variance**2 / below) * math.sqrt(variance)
    found = mean(values)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def by_seed(*hits: int, prompts: int = 200) -> np.ndarray:
    """Answers [seeds, prompts] with so many hits in each seed, the same prompts first."""
    return (np.arange(prompts) < np.array(hits)[:, None]).astype(float)


def test_differences_are_no_surer_than_their_seeds() -> None:
    """Three seeds whose differences are -.31, -.125 and -.04: t over them gives p = .19."""
    one, two = by_seed(62, 85, 96), by_seed(124, 110, 104)
    apart = (one - two).mean(1)
    assert apart == pytest.approx([-0.31, -0.125, -0.04])
    by_seeds = stats.ttest_1samp(apart, 0).confidence_interval()
    for found in (share_difference(one, two), mean_difference(one, two)):
        assert found.low <= by_seeds.low < found.value < 0 < by_seeds.high <= found.high
    both = share_sum([Part(0.5, one, two), Part(0.5, one, two)])
    assert both.low <= by_seeds.low + 1e-12
    assert both.high >= by_seeds.high - 1e-12


def test_a_share_is_no_surer_than_its_seeds() -> None:
    """Wilson's score equation in the variance of the seeds' shares holds at both ends."""
    values = by_seed(40, 180)
    found = share(values)
    variance = values.mean(1).var(ddof=1) / 2
    p = found.value
    for end in (found.low, found.high):
        error = math.sqrt(variance * end * (1 - end) / (p * (1 - p)))
        assert abs(end - p) / error == pytest.approx(stats.t.ppf(0.975, 1))


def test_means_that_seeds_alone_move_have_students_interval_over_seeds() -> None:
    generator = np.random.default_rng(4)
    values = generator.normal(0, 5, (3, 1)) + generator.normal(0, 0.1, (3, 40))
    expected = stats.ttest_1samp(values.mean(1), 0).confidence_interval()
    found = mean(values)
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-3)
    assert found.low <= expected.low + 1e-12


answers = st.integers(2, 5).flatmap(
    lambda seeds: st.lists(
        st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=seeds, max_size=seeds
    )
)


@given(answers)
def test_intervals_over_seeds_stay_within_what_can_be(hits: list[list[int]]) -> None:
    a, b, c, d = (by_seed(*column, prompts=12) for column in zip(*hits, strict=True))
    for found, least in (
        (share(a), 0),
        (share_difference(a, b), -1),
        (share_sum([Part(0.5, a), Part(0.5, b)]), 0),
        (share_sum([Part(0.5, a, b), Part(0.5, c, d)]), -1),
    ):
        assert least <= found.low <= found.value + 1e-12
        assert found.value - 1e-12 <= found.high <= 1
    there, back = share_difference(a, b), share_difference(b, a)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_seeds_that_differ_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    steady = (generator.random((5, 80)) < 0.7).astype(float)
    shaken = (generator.random((5, 80)) < np.array([[0.3], [0.9], [0.7], [0.5], [0.95]])).astype(
        float
    )
    assert share(shaken).high - share(shaken).low > 2 * (share(steady).high - share(steady).low)


def test_a_sum_of_shares_joins_the_arms_of_its_parts() -> None:
    """Over other prompts and one seed nothing is shared: arms add up as squares."""
    one, two = (np.array([[1.0] * hits + [0.0] * (20 - hits)]) for hits in (17, 20))
    found = share_sum([Part(0.5, one), Part(0.5, two)])
    ends = [stats.binomtest(hits, 20).proportion_ci(method="wilson") for hits in (17, 20)]
    assert found.value == pytest.approx((17 / 20 + 1) / 2)
    assert found.low == pytest.approx(
        found.value - math.hypot(17 / 20 - ends[0].low, 1 - ends[1].low) / 2
    )
    assert found.high == pytest.approx(found.value + (ends[0].high - 17 / 20) / 2)


def test_seeds_that_pull_two_shares_apart_narrow_their_sum() -> None:
    generator = np.random.default_rng(2)
    level = np.array([[0.5], [0.7], [0.9], [0.6], [0.8]])
    one = (generator.random((5, 200)) < level).astype(float)
    apart, along = (
        (generator.random((5, 200)) < other).astype(float) for other in (1.4 - level, level)
    )
    widths = [
        found.high - found.low
        for found in (share_sum([Part(0.5, one), Part(0.5, x)]) for x in (apart, along))
    ]
    assert widths[0] < 0.5 * widths[1]


def test_a_base_of_one_seed_stands_for_each() -> None:
    generator = np.random.default_rng(1)
    base, adapted = (generator.random((n, 40)) < 0.5 for n in (1, 4))
    one = share_difference(adapted.astype(float), base.astype(float))
    four = share_difference(adapted.astype(float), np.repeat(base, 4, axis=0).astype(float))
    assert (one.low, one.high) == (four.low, four.high)
    assert one.seeds == 4


def test_too_few_prompts_are_said() -> None:
    nothing = share(np.empty((1, 0)))
    assert math.isnan(nothing.value)
    assert nothing.prompts == 0
    assert math.isnan(mean(np.ones((1, 1))).low)


# Levels on the logit scale at which an answer counts for a further grade, 1 to 5.
CUTS = (-1.5, -0.5, 0.5, 1.5)
SPREAD = 1.5


def expected(level: float, shift: float) -> float:
    """Share of hits over all prompts and seeds, by Gauss and Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    of = expit(level + math.hypot(SPREAD, shift) * nodes)
    return float((weights * of).sum() / weights.sum())


def level_of(level: float, shift: float) -> float:
    """The level on the logit scale that gives a share."""
    return float(optimize.brentq(lambda logit: expected(logit, shift) - level, -20, 20))


def coverage(
    seeds: int,
    prompts: int,
    levels: tuple[float, float],
    shifts: tuple[float, float] = (0.0, 0.0),
    correlation: float = 0.0,
    runs: int = 600,
) -> dict[str, float]:
    """How often intervals hold the truth of two systems, in logistic worlds.

    Prompts of three kinds are random. So are seeds, whose effects on the two systems correlate.
    They turn answers to the second kind round, as who refuses more harm refuses more look-alikes,
    and move those to the third along, as of who learns both better.

    Args:
        seeds, prompts: of each system; prompts of each kind.
        levels: of the two systems, on the logit scale.
        shifts: standard deviations of their seeds' effects.
        correlation: of these.
        runs: simulated.
    """
    generator = np.random.default_rng(1)
    (one, two), (turned_one, turned_two) = (
        [expected(sign * level, shift) for level, shift in zip(levels, shifts, strict=True)]
        for sign in (1, -1)
    )
    grades = [
        1 + sum(expected(level + cut, shift) for cut in CUTS)
        for level, shift in zip(levels, shifts, strict=True)
    ]
    truth = {
        "share": two,
        "share_difference": one - two,
        "balanced": (two + turned_two) / 2,
        "balanced_along": two,
        "balanced_difference": (one - two + turned_one - turned_two) / 2,
        "mean": grades[1],
        "mean_difference": grades[0] - grades[1],
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(runs):
        prompt = generator.normal(0, SPREAD, (3, prompts))
        effect = generator.normal(0, 1, (2, seeds, 1))
        effect[1] = correlation * effect[0] + math.sqrt(1 - correlation**2) * effect[1]
        logits = [level + shift * e for level, shift, e in zip(levels, shifts, effect, strict=True)]
        chance = generator.random((3, 2, seeds, prompts))
        (a, b), (c, d) = (
            [
                (chance[kind, n] < expit(sign * logits[n] + prompt[kind])).astype(float)
                for n in (0, 1)
            ]
            for kind, sign in enumerate((1, -1))
        )
        along = (chance[2, 1] < expit(logits[1] + prompt[2])).astype(float)
        x, y = (
            1
            + sum((chance[0, n] < expit(logits[n] + prompt[0] + cut)).astype(float) for cut in CUTS)
            for n in (0, 1)
        )
        found = {
            "share": share(b),
            "share_difference": share_difference(a, b),
            "balanced": share_sum([Part(0.5, b), Part(0.5, d)]),
            "balanced_along": share_sum([Part(0.5, b), Part(0.5, along)]),
            "balanced_difference": share_sum([Part(0.5, a, b), Part(0.5, c, d)]),
            "mean": mean(y),
            "mean_difference": mean_difference(x, y),
        }
        for name, one_found in found.items():
            # Rounding must not count where the truth is an end.
            low, high = one_found.low - 1e-12, one_found.high + 1e-12
            held[name] += low <= truth[name] <= high
    return {name: count / runs for name, count in held.items()}


@pytest.mark.proof
@pytest.mark.parametrize("prompts", [50, 150])
@pytest.mark.parametrize("levels", [(0.0, 0.5), (2.5, 1.5), (4.0, 2.0)])
def test_intervals_of_one_seed_hold_the_truth(prompts: int, levels: tuple[float, float]) -> None:
    found = coverage(1, prompts, levels, runs=1_000)
    # 0.95 less what 1,000 runs and a discrete answer leave open.
    assert min(found.values()) >= 0.91, found


# Least coverage found of each figure, rounded down: where seeds' effects are of 0.6, and where
# those of one system or both are of 2. There, shares of .1 and .9 are the worst: few seeds out of
# a skewed population hold too few of its rare ones, and say too little of how far they are.
FLOORS = {
    "share": (0.93, 0.88),
    "share_difference": (0.94, 0.91),
    "balanced": (0.97, 0.98),
    "balanced_along": (0.92, 0.89),
    "balanced_difference": (0.95, 0.95),
    "mean": (0.91, 0.82),
    "mean_difference": (0.93, 0.81),
}


@pytest.mark.proof
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("prompts", [50, 150])
@pytest.mark.parametrize("shifts", [(0.6, 0.6), (0.6, 2.0), (2.0, 2.0)])
@pytest.mark.parametrize("correlation", [0.0, 0.95])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.5, 0.5), (0.9, 0.9), (0.1, 0.5)])
def test_intervals_over_seeds_hold_the_truth(
    seeds: int,
    prompts: int,
    shifts: tuple[float, float],
    correlation: float,
    shares: tuple[float, float],
) -> None:
    levels = (level_of(shares[0], shifts[0]), level_of(shares[1], shifts[1]))
    found = coverage(seeds, prompts, levels, shifts, correlation)
    large = max(shifts) > 1
    assert all(found[name] >= floors[large] for name, floors in FLOORS.items()), found
