"""Which pairs are one piece of evidence, and halves and resamples that respect it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.concepts import ContrastPair
from safesail.ranking._clusters import clusters_of_pairs, draw_clusters, halve, pairs_that_vote


def pair(concept: str, positive: str, negative: str) -> ContrastPair:
    return ContrastPair(concept, positive, negative)


def test_pairs_that_share_a_text_are_one_cluster() -> None:
    pairs = [
        pair("a", "p0", "n0"),
        pair("a", "p1", "n1"),
        pair("b", "p2", "n0"),  # shares a twin with the first
        pair("b", "n1", "p3"),  # its positive is the second's twin
        pair("c", "p4", "p3"),  # chained to the second by the fourth
        pair("c", "p5", "n5"),
    ]
    clusters = clusters_of_pairs(pairs)
    groups = [{i for i in range(6) if clusters[i] == c} for c in sorted(set(clusters.tolist()))]
    assert sorted(groups, key=min) == [{0, 2}, {1, 3, 4}, {5}]
    assert sorted(set(clusters.tolist())) == [0, 1, 2]


def test_of_pairs_that_share_a_text_one_votes() -> None:
    pairs = [
        pair("a", "p0", "n0"),
        pair("a", "p1", "n0"),  # no: the first's twin
        pair("a", "p1", "n1"),  # yes: the one before has no vote to share
        pair("a", "n1", "p3"),  # no: its positive is a twin of one that votes
        pair("a", "p0", "p4"),
        pair("a", "p5", "n5"),
    ]
    assert pairs_that_vote(pairs).tolist() == [True, False, True, False, False, True]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 100))
@settings(deadline=None)
def test_halves_are_even_within_every_concept(counts: list[int], seed: int) -> None:
    pairs = [
        pair(f"c{c}", f"p{c} {n}", f"n{c} {n}") for c, k in enumerate(counts) for n in range(k)
    ]
    halves = halve(pairs, clusters_of_pairs(pairs), seed)
    assert set(halves.tolist()) <= {0, 1}
    place = 0
    for count in counts:
        second = int(halves[place : place + count].sum())
        assert abs(2 * second - count) <= 1
        place += count


@given(st.integers(0, 1_000))
@settings(deadline=None, max_examples=30)
def test_no_text_lies_in_both_halves(seed: int) -> None:
    generator = np.random.default_rng(seed)
    texts = [f"t{n}" for n in range(25)]
    drawn = [generator.choice(25, 2, replace=False) for _ in range(30)]
    pairs = [pair(f"c{n % 3}", texts[a], texts[b]) for n, (a, b) in enumerate(drawn)]
    clusters = clusters_of_pairs(pairs)
    half_of_pair = halve(pairs, clusters, seed)[clusters]
    half_of_text: dict[str, int] = {}
    for half, one in zip(half_of_pair.tolist(), pairs, strict=True):
        for text in (one.positive, one.negative):
            assert half_of_text.setdefault(text, half) == half


def test_large_clusters_are_spread() -> None:
    """Six pairs with one twin, then six single ones: seven pairs and five.

    Six and six would leave the large cluster alone in its half.
    """
    pairs = [pair("a", f"p{n}", "shared") for n in range(6)]
    pairs += [pair("a", f"q{n}", f"n{n}") for n in range(6)]
    clusters = clusters_of_pairs(pairs)
    for seed in range(5):
        halves = halve(pairs, clusters, seed)
        assert sorted(np.bincount(halves[clusters]).tolist()) == [5, 7]
        assert min(np.bincount(halves)) == 2


def test_halves_follow_the_seed() -> None:
    pairs = [pair("a", f"p{n}", f"n{n}") for n in range(40)]
    clusters = clusters_of_pairs(pairs)
    first = halve(pairs, clusters, 1)
    assert (first == halve(pairs, clusters, 1)).all()
    assert (first != halve(pairs, clusters, 2)).any()
    means = [halve(pairs, clusters, seed)[0] for seed in range(200)]
    assert 70 < sum(means) < 130


def test_templates_in_scripts_without_spaces() -> None:
    pairs = [
        pair("a", f"我真的很讨厌{who}人", f"我真的很喜欢{who}人") for who in ("男", "女", "外国")
    ]
    pairs += [
        pair("a", "我真的很讨厌男人", "今天天气很好"),
        pair("a", "他昨天偷了一辆车", "他昨天买了一辆车"),
    ]
    assert sorted(groups_of(pairs), key=min) == [{0, 1, 2, 3}, {4}]


def test_long_texts_are_compared_whole_only() -> None:
    long = " ".join(f"w{n}" for n in range(60))
    pairs = [pair("a", f"{long} p{n}", f"{long} q{n}") for n in range(3)]
    assert len(groups_of(pairs)) == 3
    assert len(groups_of([*pairs, pair("a", f"{long} p0", "another")])) == 3


def groups_of(pairs: list[ContrastPair]) -> list[set[int]]:
    clusters = clusters_of_pairs(pairs)
    return [{int(i) for i in np.flatnonzero(clusters == c)} for c in range(clusters.max() + 1)]


def test_pairs_of_one_template_are_one_cluster() -> None:
    pairs = [
        pair("a", "I really hate trans people", "I really like trans people"),
        pair("a", "I really hate women", "I really like women"),
        # The same frame on one side only: another twin, another template.
        pair("a", "I really hate Mondays", "Mondays are dull but short"),
        pair("a", "He sold her a forged visa", "He sold her an iron gate"),
        # Too short to call it a template.
        pair("a", "kill him", "greet him"),
        pair("a", "kill her", "greet her"),
    ]
    assert groups_of(pairs) == [{0, 1}, {2}, {3}, {4}, {5}]


def test_a_template_that_is_named_is_believed() -> None:
    pairs = [
        ContrastPair("a", "one thing", "another", template="t1"),
        ContrastPair("a", "quite different", "words", template="t1"),
        ContrastPair("a", "I really hate trans people", "I like them", template="t2"),
        ContrastPair("a", "I really hate women", "I like them too", template="t3"),
    ]
    assert groups_of(pairs) == [{0, 1}, {2}, {3}]


def test_resamples_keep_the_size_of_every_stratum() -> None:
    strata = ["a"] * 5 + ["b"] * 3 + ["a"]
    draws = draw_clusters(strata, 300, seed=0)
    in_a = np.array([stratum == "a" for stratum in strata])
    assert (draws[:, in_a].sum(1) == 6).all()
    assert (draws[:, ~in_a].sum(1) == 3).all()
    # With replacement: each cluster is left out of about (1 - 1/n)^n of the resamples.
    left_out = (draws == 0).mean(0)
    assert np.abs(left_out[in_a] - (5 / 6) ** 6).max() < 0.1
    assert np.abs(left_out[~in_a] - (2 / 3) ** 3).max() < 0.1
    assert (draws == draw_clusters(strata, 300, seed=0)).all()
