"""Near-duplicates: planted ones are found, what only looks like one is not, chains are cut."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import pytest
from explaining_windows import context
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from safesail.explaining import find_duplicates
from safesail.tables import Context


def turned(cosines: Sequence[float]) -> NDArray[np.float32]:
    """Directions in a plane at these cosines to the first axis."""
    angles = np.arccos(np.array(cosines))
    return np.stack([3 * np.cos(angles), 3 * np.sin(angles)], axis=1).astype(np.float32)


def windows(
    tokens: Sequence[int], *, seed: int = 0, count: int = 50, split: str = "explain"
) -> list[Context]:
    """Windows of 20 tokens drawn anew for every seed, active at one of the given token ids."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        ids = [rng.randrange(1_000, 2_000) for _ in range(20)]
        values = [0.0] * 20
        place = rng.randrange(20)
        ids[place], values[place] = rng.choice(tokens), rng.uniform(0.5, 5.0)
        made = context(
            [f" {token}" for token in ids],
            values,
            split=split,
            document=f"{seed}-{number}",
            level=number % 10 + 1,
        )
        made.token_ids[:] = ids
        found.append(made)
    return found


def test_a_feature_planted_twice_is_found_though_no_window_is_shared() -> None:
    contexts = {7: windows([1, 2, 3], seed=0), 3: windows([1, 2, 3], seed=1), 5: windows([9])}
    found = find_duplicates([7, 5, 3], turned([1.0, 0.2, 0.98]), contexts)
    assert found == {3: 7}


def test_equal_directions_with_other_contexts_are_no_duplicates() -> None:
    contexts = {0: windows([1, 2, 3]), 1: windows([4, 5, 6])}
    assert find_duplicates([0, 1], turned([1.0, 1.0]), contexts) == {}


@pytest.mark.parametrize(("cosine", "found"), [(0.951, {1: 0}), (0.949, {})])
def test_the_least_cosine_is_0_95(cosine: float, found: dict[int, int]) -> None:
    contexts = {0: windows([1, 2]), 1: windows([1, 2], seed=1)}
    assert find_duplicates([0, 1], turned([1.0, cosine]), contexts) == found


@pytest.mark.parametrize(("share", "found"), [(0.6, {1: 0}), (0.5, {})])
def test_the_least_overlap_is_0_4(share: float, found: dict[int, int]) -> None:
    # A share s in common: s / (2 - s) is 0.43 and 0.33.
    common = [1.0 * share, 1.0 - share]
    contexts = {
        feature: [context(["a", "b"], common, split="explain", document="d")] for feature in (0, 1)
    }
    for feature, (only,) in contexts.items():
        only.token_ids[:] = [100, feature]
    assert find_duplicates([0, 1], turned([1.0, 1.0]), contexts) == found


def test_a_chain_is_cut_where_it_leaves_the_representative() -> None:
    # Each is 12 degrees from the next, and only what is within 18 is near.
    directions = turned(np.cos(np.radians([0, 12, 24, 36])).tolist())
    contexts = {feature: windows([1], seed=feature) for feature in range(4)}
    assert find_duplicates([0, 1, 2, 3], directions, contexts) == {1: 0, 3: 2}


def test_the_first_in_the_order_represents() -> None:
    contexts = {feature: windows([1], seed=feature) for feature in range(3)}
    assert find_duplicates([2, 0, 1], turned([1.0, 1.0, 1.0]), contexts) == {0: 2, 1: 2}


def test_opposite_and_zero_directions_are_near_nothing() -> None:
    contexts = {feature: windows([1], seed=feature) for feature in range(4)}
    directions = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert find_duplicates([0, 1, 2, 3], directions, contexts) == {}


def test_features_without_active_windows_are_near_nothing() -> None:
    silent = [context(["a"], [0.0], kind="silent", split="explain")]
    contexts = {0: windows([1]), 1: silent}
    assert find_duplicates([0, 1, 2], turned([1.0, 1.0, 1.0]), contexts) == {}


def test_nothing_of_the_score_split_counts() -> None:
    contexts = {
        0: windows([1]) + windows([2], split="score"),
        1: windows([1], seed=1) + windows([8], split="score", count=500),
    }
    assert find_duplicates([0, 1], turned([1.0, 1.0]), contexts) == {1: 0}


def test_a_window_kept_twice_counts_once() -> None:
    once = windows([1, 2, 3, 4])
    alone = [*once, *[once[0]] * 500]
    assert find_duplicates([0, 1], turned([1, 1]), {0: once, 1: alone}) == {1: 0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_every_duplicate_is_near_its_representative_and_none_is_both(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 2))
    features = rng.permutation(100)[:count].tolist()
    contexts = {feature: windows([1], seed=feature, count=3) for feature in features}
    found = find_duplicates(features, directions, contexts)
    place = {feature: number for number, feature in enumerate(features)}
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for duplicate, of in found.items():
        assert of not in found
        assert place[of] < place[duplicate]
        assert unit[place[of]] @ unit[place[duplicate]] >= 0.95
    # Between representatives nothing is near.
    left = [place[feature] for feature in features if feature not in found]
    cosines = unit[left] @ unit[left].T
    assert (cosines[~np.eye(len(left), dtype=bool)] < 0.95).all()


def test_faults_of_the_caller_are_named() -> None:
    with pytest.raises(ValueError, match="2 features, but 1 directions"):
        find_duplicates([0, 1], turned([1.0]), {})
    with pytest.raises(ValueError, match="twice"):
        find_duplicates([0, 0], turned([1.0, 1.0]), {})
    assert find_duplicates([], np.empty((0, 4)), {}) == {}


def test_five_thousand_features_take_seconds() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5_000, 256)).astype(np.float32)
    directions[4_900:] = directions[:100] + 0.1 * rng.normal(size=(100, 256))
    contexts = {
        n: windows([n % 4_900], seed=n, count=10) for n in [*range(100), *range(4_900, 5_000)]
    }
    started = time.process_time()
    found = find_duplicates(list(range(5_000)), directions, contexts)
    assert found == {4_900 + n: n for n in range(100)}
    assert time.process_time() - started < 20
