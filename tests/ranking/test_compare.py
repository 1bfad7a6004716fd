"""The order of scored candidates: places, ties, means over concepts, refused ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safesail.concepts import ConceptSet, ContrastPair
from safesail.errors import CandidateError
from safesail.ranking import Ranking, compare
from safesail.ranking._score import RESAMPLES


def named(names: set[str]) -> ConceptSet:
    return ConceptSet(ContrastPair(name, f"{name} yes", f"{name} no") for name in sorted(names))


def row(sae: str, resamples: NDArray, concept: str = "a", **more: Any) -> dict[str, Any]:
    numbers = ("hook_point", "l0", "fvu", "dead_share", "pairs", "called_features")
    about: dict[str, Any] = dict.fromkeys([*numbers, "separation_best_low", "separation_best_high"])
    about |= {"sae": sae, "concept": concept, "layer": 1, "health": "ok", "mean_rank": None}
    about |= {"separation_chance": 0.25}
    mean = float(np.mean(resamples))
    return {**about, "separation_best": mean, "separation_resamples": resamples.tolist(), **more}


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
    compare(rows, named({"a"}))
    found = {r["sae"]: (r["rank"], r["tied_with_best"]) for r in rows}
    assert found["best"] == (1, True)
    assert found["twin"] == (1, True)
    assert found["near"][1]
    assert not found["behind"][1]
    assert found["worse"] == (5, False)


def ranking_of(rows: list[dict[str, Any]], names: set[str]) -> Ranking:
    compare(rows, named(names))
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
    ranking = ranking_of(rows, {"a/one", "a/two", "b", "c"})
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
    assert ranking.candidate_lines(layer=1)[0].separation == pytest.approx((0.9 + 0.1 + 0.1) / 3)
    assert {line.concept: line.best for line in ranking.concept_lines()}["a/two"] == "x"


def test_refused_candidates_leave_the_others_ranked() -> None:
    refused = {"separation_best": None, "separation_resamples": None, "health": "refused: no hook"}
    rows = [
        row("bad", np.zeros(1), **refused),
        row("fvu", np.full(RESAMPLES, 0.99), health="FVU 3.00: ..."),
        row("good", np.full(RESAMPLES, 0.4)),
    ]
    ranking = ranking_of(rows, {"a"})
    assert ranking.order() == ["good"]
    assert rows[2]["rank"] == 1
    assert ranking.refused() == {"bad": "refused: no hook", "fvu": "FVU 3.00: ..."}
    with pytest.raises(
        CandidateError, match=r"no candidate could be ranked: bad: refused: no hook"
    ):
        compare(rows[:1], named({"a"}))
