"""Active choice: what is likely found comes first, what was found is learnt, a run is repeated."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from explaining_windows import context, planted_feature
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.explaining import Chooser, FeatureEvidence, Prospect, prospects_of

_ROW = {
    "feature": 7,
    "concept": "violence",
    "f": 0.8,
    "separation": 0.9,
    "specificity": 0.5,
    "q_value": 0.001,
    "called": True,
    "density": 0.01,
}


def prospect(
    feature: int, separation: float = 0.5, cost: float = 4_000.0, **more: float
) -> Prospect:
    return Prospect(feature, {"separation": separation, "log_q_value": -1.0, **more}, cost)


def pool(count: int, seed: int = 0) -> tuple[list[Prospect], dict[int, bool]]:
    """Features of which a fifth are findable: those of large `lexical`, which no prior knows."""
    rng = np.random.default_rng(seed)
    lexical = rng.normal(size=count)
    findable = lexical + rng.normal(scale=0.3, size=count) > 0.9
    return (
        [
            prospect(n, float(rng.random()), lexical=float(lexical[n]), noise=float(rng.normal()))
            for n in range(count)
        ],
        dict(enumerate(findable.tolist())),
    )


def run(chooser: Chooser, truth: Mapping[int, bool]) -> list[list[int]]:
    found: dict[int, bool] = {}
    rounds = []
    while chosen := chooser.next_round(found):
        rounds.append(chosen)
        found |= {feature: truth[feature] for feature in chosen}
    return rounds


def share_needed(rounds: list[list[int]], truth: Mapping[int, bool]) -> float:
    """Share of all features explained until 80 % of the findable ones are."""
    order = [truth[feature] for chosen in rounds for feature in chosen]
    reached = np.cumsum(order) >= 0.8 * sum(order)
    return float(reached.argmax() + 1) / len(order)


def test_the_first_round_follows_the_ranking_statistics() -> None:
    prospects = [
        Prospect(n, {"separation": n / 100, "log_q_value": -n / 10}, 4_000.0) for n in range(80)
    ]
    first = Chooser(prospects, seed=0).next_round({})
    assert first[:21] == list(range(79, 58, -1))
    assert len(first) == 24
    assert all(feature < 59 for feature in first[21:])


def test_the_cheaper_of_two_equal_features_comes_first() -> None:
    prospects = [prospect(n, cost=4_000.0 - 10 * n) for n in range(8)]
    first = Chooser(prospects, seed=0, round_size=4).next_round({})
    assert first == [7, 6, 5, 4]


def test_what_was_found_overrules_a_prior_that_knows_nothing() -> None:
    prospects, truth = pool(500)
    needed = share_needed(run(Chooser(prospects, seed=1), truth), truth)
    assert sum(truth.values()) / 500 == pytest.approx(0.2, abs=0.04)
    assert needed < 0.4  # 0.8 in random order, 0.16 at best


def test_a_prior_that_is_the_wrong_way_round_is_found_out() -> None:
    truth = {n: n < 100 for n in range(500)}
    prospects = [prospect(n, separation=n / 500) for n in range(500)]
    needed = share_needed(run(Chooser(prospects, seed=1), truth), truth)
    assert needed < 0.5  # 0.96 by the prior alone


def test_few_labels_that_agree_with_the_prior_are_not_led_astray_by_chance() -> None:
    means = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        prospects = [
            prospect(n, separation=n / 200, **{f"noise{k}": float(rng.normal()) for k in range(8)})
            for n in range(200)
        ]
        # A pilot of eight, of which the better half by the prior was found.
        pilot = sorted(rng.choice(200, 8, replace=False).tolist())
        found = {n: place >= 4 for place, n in enumerate(pilot)}
        means.append(np.mean(Chooser(prospects, seed=0).next_round(found)[:21]))
    assert np.mean(means) > 150  # 99.5 at random, 188 without noise


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 5), st.randoms())
def test_every_feature_is_given_out_once_and_order_changes_nothing(
    count: int, round_size: int, seed: int, rng: random.Random
) -> None:
    prospects, truth = pool(count, seed)
    rounds = run(Chooser(prospects, seed=seed, round_size=round_size), truth)
    assert sorted(feature for chosen in rounds for feature in chosen) == list(range(count))
    shuffled = prospects.copy()
    rng.shuffle(shuffled)
    again = Chooser(shuffled, seed=seed, round_size=round_size)
    found: dict[int, bool] = {}
    for chosen in rounds:
        assert len(chosen) <= round_size
        order = list(found)
        rng.shuffle(order)
        assert again.next_round({feature: found[feature] for feature in order}) == chosen
        found |= {feature: truth[feature] for feature in chosen}
    assert again.next_round(found) == []


def test_a_run_that_was_stopped_between_rounds_goes_on_as_it_would_have() -> None:
    prospects, truth = pool(200)
    rounds = run(Chooser(prospects, seed=3), truth)
    found = {feature: truth[feature] for chosen in rounds[:4] for feature in chosen}
    assert Chooser(prospects, seed=3).next_round(found) == rounds[4]


def test_features_that_failed_do_not_come_again() -> None:
    prospects, _ = pool(60)
    chooser = Chooser(prospects, seed=0)
    rounds = [chooser.next_round({}) for _ in range(4)]
    assert [len(chosen) for chosen in rounds] == [24, 24, 12, 0]
    assert len({feature for chosen in rounds for feature in chosen}) == 60


def test_the_random_places_depend_on_the_seed() -> None:
    prospects = [prospect(n, separation=n / 500) for n in range(500)]
    one, other = (Chooser(prospects, seed=seed).next_round({}) for seed in (0, 1))
    assert one[:21] == other[:21]
    assert not set(one[21:]) & set(other[21:])


def test_undefined_statistics_are_put_in_the_middle() -> None:
    prospects = [prospect(n, separation=n / 50, lexical=float(n % 7)) for n in range(50)]
    prospects.append(prospect(50, separation=math.nan, lexical=math.nan))
    prospects = [replace(p, statistics={**p.statistics, "never": math.nan}) for p in prospects]
    rounds = run(Chooser(prospects, seed=0, round_size=17), {n: n > 40 for n in range(51)})
    assert 50 not in rounds[0][:14]
    assert sum(map(len, rounds)) == 51


@pytest.mark.parametrize(
    ("prospects", "message"),
    [
        ([prospect(1), prospect(1)], "twice"),
        ([prospect(1), prospect(2, lexical=1.0)], "differ"),
        ([Prospect(1, {"f": 0.5}, 4_000.0)], "lack log_q_value, separation"),
        ([prospect(1, cost=0.0)], "above 0"),
        ([prospect(1, cost=math.nan)], "above 0"),
    ],
)
def test_what_cannot_be_ordered_is_refused(prospects: list[Prospect], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chooser(prospects, seed=0)


def test_the_best_row_of_a_feature_speaks_for_it() -> None:
    other = _ROW | {"concept": "fraud", "separation": 0.3, "q_value": 0.9, "called": False}
    (found,) = prospects_of([planted_feature()], [other, _ROW, _ROW | {"feature": 8}])
    assert found.feature == 7
    assert found.statistics["separation"] == 0.9
    assert found.statistics["log_q_value"] == pytest.approx(math.log(0.001))
    assert found.statistics["called"] == 1.0
    assert found.statistics["log_density"] == pytest.approx(math.log(0.01))


def test_the_lexical_score_tells_a_feature_of_words_from_one_without() -> None:
    evidence = planted_feature()
    (words,) = prospects_of([evidence], [_ROW])
    rng = random.Random(0)
    values = [context.activations for context in evidence.contexts]
    rng.shuffle(values)  # active windows' activations land on any window's words
    scrambled = [
        replace(context, activations=(of + [0.0] * 40)[: len(context.tokens)])
        for context, of in zip(evidence.contexts, values, strict=True)
    ]
    (none,) = prospects_of([replace(evidence, contexts=scrambled)], [_ROW])
    assert words.statistics["lexical_discrimination"] > 0.9
    assert words.statistics["lexical_correlation"] > 0.8
    assert none.statistics["lexical_discrimination"] < 0.7
    assert none.statistics["lexical_correlation"] < 0.4


def test_firing_statistics_weigh_windows_by_what_they_stand_for() -> None:
    made = [
        context(["a", "b", "c", "d"], values, split="explain", document=name, weight=weight)
        for name, values, weight in (("one", [2, 0, 0, 0], 3.0), ("two", [1, 1, 0, 0], 1.0))
    ]
    top = context(["e"], [9], split="explain", sample="top", document="three", weight=math.nan)
    silent = context(["a"], [0], kind="silent", split="explain", document="four", weight=50.0)
    evidence = replace(planted_feature(), contexts=[*made, top, silent])
    (found,) = prospects_of([evidence], [_ROW])
    # Token 0 has 3 x 2 + 1 x 1 of the mass, token 1 has 1 x 1.
    assert found.statistics["top_token_share"] == pytest.approx(7 / 8)
    assert found.statistics["token_entropy"] == pytest.approx(
        -(7 / 8 * math.log(7 / 8) + 1 / 8 * math.log(1 / 8))
    )
    assert found.statistics["active_share"] == pytest.approx((3 * 0.25 + 1 * 0.5) / 4)


def test_nothing_of_the_score_split_steers_the_choice() -> None:
    evidence = planted_feature()
    blind = [c for c in evidence.contexts if c.split == "explain"]
    assert prospects_of([evidence], [_ROW]) == prospects_of(
        [replace(evidence, contexts=blind)], [_ROW]
    )


def test_shorter_windows_cost_less() -> None:
    evidence = planted_feature()
    half = [
        replace(c, tokens=c.tokens[:10], token_ids=c.token_ids[:10], activations=c.activations[:10])
        for c in evidence.contexts
    ]
    whole, cut = prospects_of([evidence, replace(evidence, contexts=half)], [_ROW])
    assert 1_500 < cut.cost < whole.cost


def test_a_feature_with_hardly_any_windows_has_undefined_statistics() -> None:
    whole = planted_feature()
    silent = [c for c in whole.contexts if c.kind == "silent"][:1]
    nothing = FeatureEvidence("sae", 3, 8, 5.0, ["violence"], [], "dead")
    row = _ROW | {"feature": 8, "density": None}
    one, other, none = prospects_of([whole, replace(whole, contexts=silent), nothing], [_ROW, row])
    assert math.isnan(other.statistics["lexical_discrimination"])
    assert math.isnan(none.statistics["log_density"])
    assert set(one.statistics) == set(other.statistics) == set(none.statistics)
    assert none.cost > 0


def test_a_feature_without_a_row_is_named() -> None:
    with pytest.raises(ValueError, match=r"without a row: \[7\]"):
        prospects_of([planted_feature()], [_ROW | {"feature": 8}])
