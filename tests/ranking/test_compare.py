"""The order of scored candidates: places, ties, means over concepts, refused ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safesail.errors import CandidateError
from safesail.ranking import Ranking, compare
from safesail.ranking._compare import places
from safesail.ranking._design import RESAMPLES


def row(
    sae: str,
    resamples: NDArray,
    concept: str = "a",
    count: int = 0,
    counts: NDArray | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of the rankings table; without counts, candidates differ by their separation."""
    empty = ("hook_point", "architecture", "width", "l0", "fvu", "dead_share", "pairs", "i_cdf")
    about: dict[str, Any] = dict.fromkeys([*empty, "called_features", "least_callable_f"])
    for name in ("separating_features", "separation_best", "i_cdf"):
        about |= {f"{name}_low": None, f"{name}_high": None}
    about |= {"sae": sae, "concept": concept, "layer": 1, "health": "ok", "mean_rank": None}
    about |= {"separation_chance": 0.25, "independent_pairs": 40}
    flat = np.full(RESAMPLES, float(count)) if counts is None else counts
    about |= {"separating_features": count, "separating_resamples": flat.tolist()}
    mean = float(np.mean(resamples))
    return {**about, "separation_best": mean, "separation_resamples": resamples.tolist(), **more}


def test_more_separating_features_come_first_whatever_the_best_one_does() -> None:
    flat = np.full(RESAMPLES, 0.5)
    rows = [row("few", flat + 0.4, count=2), row("many", flat, count=5), row("same", flat, count=5)]
    compare(rows)
    found = {r["sae"]: (r["rank"], r["tied_with_best"]) for r in rows}
    assert found == {"few": (3, False), "many": (1, True), "same": (1, True)}
    assert [r["best_probability"] for r in rows] == [0, 0.5, 0.5]


def test_counts_inside_the_noise_are_tied_and_share_the_first_place() -> None:
    flat = np.full(RESAMPLES, 0.5)
    generator = np.random.default_rng(0)
    rows = [
        row("five", flat, count=5, counts=generator.binomial(6, 0.8, RESAMPLES).astype(float)),
        row("four", flat, count=4, counts=generator.binomial(6, 0.7, RESAMPLES).astype(float)),
        row("none", flat, count=0),
    ]
    compare(rows)
    assert [r["tied_with_best"] for r in rows] == [True, True, False]
    first, second, last = (r["best_probability"] for r in rows)
    five, four = (np.array(r["separating_resamples"]) for r in rows[:2])
    assert first == pytest.approx(np.mean((five > four) + 0.5 * (five == four)))
    assert first + second == pytest.approx(1)
    assert last == 0


def test_a_concept_with_too_few_pairs_to_cross_fit_is_ranked_all_the_same() -> None:
    nothing = np.full(RESAMPLES, np.nan)
    few: dict[str, Any] = {"separation_best": float("nan"), "independent_pairs": 3}
    rows = [row("none", nothing, **few), row("two", nothing, count=2, **few)]
    ranking = ranking_of(rows)
    assert [r["rank"] for r in rows] == [2, 1]
    assert ranking.order() == ["two", "none"]
    (line,) = ranking.concept_lines()
    assert (line.best, line.few_pairs) == ("two", True)
    assert [line.sae for line in ranking.candidate_lines()] == ["two", "none"]


def test_places_by_sorting() -> None:
    generator = np.random.default_rng(1)
    counts = generator.integers(0, 3, (20, 6)).astype(float)
    precision = generator.integers(0, 4, (20, 6)) / 3
    for count, value, place in zip(counts, precision, places(counts, precision), strict=True):
        keys = list(zip(count, value, strict=True))
        assert place.tolist() == [1 + sum(other > key for other in keys) for key in keys]


def test_candidates_inside_the_noise_are_tied_and_worse_ones_are_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, RESAMPLES)
    own = np.random.default_rng(1).normal(0, 0.05, RESAMPLES)
    rows = [
        row("worse", 0.5 + noise),
        row("best", 0.8 + noise),
        row("twin", 0.8 + noise),
        row("near", 0.78 + own),
        # Always a little behind on the same pairs: no overlap of the difference, though both
        # intervals overlap widely.
        row("behind", 0.79 + noise),
    ]
    compare(rows)
    found = {r["sae"]: (r["rank"], r["tied_with_best"]) for r in rows}
    assert found["best"] == (1, True)
    assert found["twin"] == (1, True)
    assert found["near"][1]
    assert not found["behind"][1]
    assert found["worse"] == (5, False)


def ranking_of(rows: list[dict[str, Any]]) -> Ranking:
    compare(rows)
    return Ranking(rows, {})


def test_concepts_weigh_equally_and_children_do_not_count_twice() -> None:
    flat = np.zeros(RESAMPLES)
    values = {
        "x": {"a": 0.9, "a/one": 0.9, "a/two": 0.9, "b": 0.1, "c": 0.1},
        "y": {"a": 0.5, "a/one": 0.5, "a/two": 0.5, "b": 0.9, "c": 0.9},
    }
    rows = [
        row(sae, flat + value, concept, layer={"x": 1, "y": 2}[sae])
        for sae, of in values.items()
        for concept, value in of.items()
    ]
    ranking = ranking_of(rows)
    means = {r["sae"]: r["mean_rank"] for r in rows}
    assert means == {"x": pytest.approx(5 / 3), "y": pytest.approx(4 / 3)}
    assert ranking.order() == ["y", "x"]
    # Equal mean ranks: the larger mean separation comes first, not the first name.
    assert ranking.order(by=("a/one", "b")) == ["y", "x"]
    assert ranking.best(by=("a",)) == "x"
    assert ranking.best(layer=1) == "x"
    with pytest.raises(CandidateError, match=r"no ranked candidate at layer 7; .* at: 1, 2"):
        ranking.best(layer=7)
    assert [line.sae for line in ranking.candidate_lines()] == ["y", "x"]
    # A part of them is ranked anew: places and probabilities are among that part alone.
    (alone,) = ranking.among({"x"}).candidate_lines()
    assert (alone.mean_rank, alone.best_probability, alone.tied) == (1, 1, True)
    assert alone.separation == pytest.approx((0.9 + 0.1 + 0.1) / 3)
    assert {line.tied for line in ranking.among({"x"}).concept_lines()} == {1}
    assert means == {r["sae"]: r["mean_rank"] for r in ranking.rows}
    assert {line.concept: line.best for line in ranking.concept_lines()}["a/two"] == "x"


def test_refused_candidates_leave_the_others_ranked() -> None:
    refused = {"separation_best": None, "separation_resamples": None, "health": "refused: no hook"}
    rows = [
        row("bad", np.zeros(1), **refused),
        row("fvu", np.full(RESAMPLES, 0.99), health="FVU 3.00: ..."),
        row("good", np.full(RESAMPLES, 0.4)),
    ]
    ranking = ranking_of(rows)
    assert ranking.order() == ["good"]
    assert rows[2]["rank"] == 1
    assert ranking.refused() == {"bad": "refused: no hook", "fvu": "FVU 3.00: ..."}
    with pytest.raises(
        CandidateError, match=r"no candidate could be ranked: bad: refused: no hook"
    ):
        compare(rows[:1])
