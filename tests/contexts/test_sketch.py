"""What a sketch keeps is what looking at everything finds, in whatever parts it was seen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_contexts import FEATURES, Planted, brute_force, feed, level_of, plant, sketch_of
from scipy.stats import chi2

from safesail.contexts._contexts import contexts, statistics
from safesail.contexts._counts import Counts
from safesail.contexts._sketch import Sketch, SketchSettings
from safesail.contexts._windows import split_of
from safesail.language_model import TokenizedText
from safesail.study import CollectionSettings

SMALL = SketchSettings(top=3, per_bin=2, silent_sample=20, seed=0)
CHOSEN = CollectionSettings(top=3, per_level=2, silent=4, hard_silent=4)


def rows_of(sketch: Sketch, chosen: CollectionSettings = CHOSEN) -> list[dict[str, Any]]:
    return [row for table in contexts(sketch, "s", 1, chosen) for row in table.to_pylist()]


def identities(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    names = ("feature", "split", "kind", "level", "sample", "document", "start")
    return Counter(
        (
            *(row[name] for name in names),
            stated(row["weight"]),
            tuple(row["activations"]),
            tuple(row["token_ids"]),
        )
        for row in rows
    )


def expected(planted: Planted, sketch: SketchSettings) -> Counter[tuple[Any, ...]]:
    return Counter(
        (
            *(feature, split, kind, level, sample, w["document"], w["start"]),
            stated(weight),
            tuple(w["activations"]),
            tuple(w["ids"]),
        )
        for feature, found in brute_force(planted, sketch, CHOSEN).items()
        for split, kind, level, sample, weight, w in found["rows"]
    )


def stated(weight: float) -> float | None:
    return None if math.isnan(weight) else round(weight, 9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("documents", [1, 40, 700])
def test_contexts_are_those_that_looking_at_everything_finds(seed: int, documents: int) -> None:
    planted = plant(seed, documents)
    found = identities(rows_of(sketch_of(planted, SMALL)))
    assert found == expected(planted, SMALL)
    if documents == 700:
        kinds = Counter((key[1], key[2], key[4]) for key in found)
        assert len(kinds) == 8
        assert sum(found.values()) > 100


def test_levels_with_room_hold_every_window() -> None:
    planted = plant(5, 120)
    room = SketchSettings(top=1, per_bin=10_000, silent_sample=10_000, seed=0)
    chosen = CollectionSettings(top=1, per_level=10_000, silent=10_000, hard_silent=10_000)
    drawn = [row for row in rows_of(sketch_of(planted, room), chosen) if row["sample"] == "random"]
    assert {row["weight"] for row in drawn} == {1.0}
    windows = Counter((row["feature"], row["document"], row["start"]) for row in drawn)
    assert set(windows.values()) == {1}
    every = brute_force(planted, room, chosen)
    assert set(windows) == {
        (feature, window["document"], window["start"])
        for feature, found in every.items()
        for window in found["windows"]
    }


def test_statistics_are_those_of_all_activations() -> None:
    planted = plant(1, 700)
    found = statistics(sketch_of(planted, SMALL))
    tokens = sum(int(counted.sum()) for counted in planted.content)
    statuses = set()
    for feature, known in brute_force(planted, SMALL, CHOSEN).items():
        values, mine = np.array(known["values"]), found[feature]
        assert (mine["tokens_seen"], mine["fired"]) == (tokens, len(values))
        assert mine["density"] == len(values) / tokens
        assert mine["max_activation"] == values.max()
        counts, _ = np.histogram(values, mine["histogram_edges"])
        assert counts.tolist() == mine["histogram_counts"]
        assert sum(counts) == len(values)
        exact = np.quantile(values, 0.999) if len(values) >= 1000 else values.max()
        assert abs(mine["q999"] / exact - 1) <= mine["q999_error"]
        statuses.add((len(values) >= 1000, mine["q999_error"]))
    assert statuses == {(False, 0.0), (True, 1 / 64)}


@given(st.integers(1000, 5000), st.floats(-14, 14), st.floats(0, 2.0), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_q999_lies_within_its_stated_error(
    count: int, octave: float, spread: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    values = (2**octave * generator.lognormal(0, spread / 2, count)).astype(np.float32)
    counts = Counts.empty(1, "cpu")
    for part in np.array_split(values, 7):
        counts.add_tokens(torch.from_numpy(part[:, None]))
    (q999,), (error,) = counts.q999()
    assert abs(q999 / np.quantile(values.astype(float), 0.999) - 1) <= error <= 1 / 64


@pytest.mark.parametrize(
    "values",
    [
        [2.0**-30] * 1000,
        [2.0**30] * 1000,
        [2.0**30] * 5,
        # The quantile lies between two values, of which one lies beyond.
        [1.0] * 999 + [1e12],
        [1e-9] * 999 + [2.0**-10],
        [1e-7] * 1500 + [1e-5] * 2,
    ],
)
def test_beyond_the_range_no_error_is_promised(values: list[float]) -> None:
    counts = Counts.empty(1, "cpu")
    counts.add_tokens(torch.tensor(values)[:, None])
    _, (error,) = counts.q999()
    assert np.isinf(error)


def test_what_lies_beyond_without_weight_in_the_quantile_is_no_matter() -> None:
    counts = Counts.empty(1, "cpu")
    counts.add_tokens(torch.tensor([1e-9] * 500 + [1.0] * 5000 + [1e12])[:, None])
    (q999,), (error,) = counts.q999()
    assert abs(q999 - 1) <= error == 1 / 64


PARTS = st.lists(st.integers(0, 2), min_size=30, max_size=30)


@given(st.integers(0, 10_000), PARTS, st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_merging_is_one_pass_in_any_order(seed: int, owner: list[int], batch: int) -> None:
    """Associative, commutative, and equal to one pass, in every part of the sketch."""
    planted = plant(seed, 30)
    tiny = SketchSettings(top=2, per_bin=2, silent_sample=5, seed=seed)

    def part(number: int) -> Sketch:
        mine = [n for n, of in enumerate(owner) if of == number]
        return sketch_of(planted, tiny, mine, batch=batch)

    def merged(*sketches: Sketch) -> Sketch:
        first, *others = sketches
        for other in others:
            first.merge(other)
        return first

    whole = parts_of(sketch_of(planted, tiny))
    assert parts_of(merged(part(0), part(1), part(2))) == whole
    assert parts_of(merged(part(2), part(0), part(1))) == whole
    assert parts_of(merged(part(0), merged(part(1), part(2)))) == whole


@given(st.integers(0, 10_000), st.integers(0, 30))
@settings(deadline=None, max_examples=15)
def test_a_stored_sketch_goes_on_as_if_it_had_not_been_stored(seed: int, seen: int) -> None:
    planted = plant(seed, 30)
    tiny = SketchSettings(top=2, per_bin=2, silent_sample=5, seed=seed)
    before = sketch_of(planted, tiny, range(seen))
    after = feed(Sketch.from_arrays(before.arrays()), planted, range(seen, 30))
    assert parts_of(after) == parts_of(sketch_of(planted, tiny))


def parts_of(sketch: Sketch) -> dict[str, Any]:
    """All that a sketch holds, with texts in the order of their keys."""
    arrays = sketch.arrays()
    texts = sketch.texts().sort_by("window").to_pylist()
    return {"texts": texts} | {
        name: value.tolist() for name, value in arrays.items() if name != "texts"
    }


def test_sketches_of_other_settings_are_not_merged() -> None:
    with pytest.raises(ValueError, match="other features or settings"):
        Sketch(FEATURES, SMALL).merge(Sketch(FEATURES[:2], SMALL))
    with pytest.raises(ValueError, match="other features or settings"):
        Sketch(FEATURES, SMALL).merge(Sketch(FEATURES, replace(SMALL, seed=1)))


def test_what_is_held_does_not_grow_with_the_corpus() -> None:
    """Four times the documents, and as many rows, texts and bytes, but for what is still rare."""
    sizes = []
    for documents in (400, 1600, 6400):
        sketch = sketch_of(plant(0, documents), replace(SMALL, silent_sample=10), batch=200)
        filled = int((sketch.counts.window_histogram > 0).sum())
        most = len(FEATURES) * 2 * SMALL.top + filled * SMALL.per_bin
        assert len(sketch.active()) <= most
        assert len(sketch.texts()) <= most + 20
        sizes.append(sum(array.nbytes for array in sketch.arrays().values()))
    assert sizes[2] < 1.5 * sizes[1]


def test_what_is_held_of_peaks_over_all_octaves_is_bounded() -> None:
    """Sixteen bins an octave and forty octaves of each split are all that there is."""
    generator = np.random.default_rng(0)
    sizes = []
    for count in (10_000, 40_000):
        peaks = 2 ** generator.uniform(-25, 25, count)
        sketch = sketch_of(
            one_feature(peaks, 1), replace(SMALL, silent_sample=10), features=[1], batch=5000
        )
        rows = sketch.active()
        assert len(rows) <= 2 * (640 * SMALL.per_bin + SMALL.top)
        sizes.append(sum(array.nbytes for array in rows.arrays().values()))
    assert sizes[1] < 1.1 * sizes[0]
    assert sizes[1] / len(rows) < 50


def one_feature(peaks: NDArray[np.floating], tokens: int, low: float = 0.0) -> Planted:
    """A window for each peak, which it has at one of so many tokens; `low` at the others."""
    activations = [np.full((tokens, 1), low, dtype=np.float32) for _ in peaks]
    for number, peak in enumerate(peaks):
        activations[number][number % tokens] = peak
    texts = [
        TokenizedText(f"d{n}", 0, [n % 7, *range(8, 7 + tokens)], ["a"] * tokens, None, n + 1)
        for n in range(len(peaks))
    ]
    return Planted(texts, activations, [np.ones(tokens, dtype=bool)] * len(peaks))


def assert_levels_are_full(peaks: NDArray[np.floating], planted: Planted) -> float:
    """Of each level and split as many rows as asked, or all; weights count every window."""
    sketch = sketch_of(planted, SketchSettings.of(CollectionSettings()), features=[1], batch=500)
    rows = rows_of(sketch, CollectionSettings())
    q999: float = statistics(sketch)[1]["q999"]
    for split in ("explain", "score"):
        mine = [
            peak
            for peak, text in zip(peaks, planted.texts, strict=True)
            if split_of(text.document) == split
        ]
        drawn = [
            r for r in rows if (r["split"], r["kind"], r["sample"]) == (split, "active", "random")
        ]
        assert sum(r["weight"] for r in drawn) == pytest.approx(len(mine))
        windows = Counter(level_of(float(peak), q999) for peak in mine)
        found = Counter(r["level"] for r in drawn)
        assert found == {level: min(5, number) for level, number in windows.items()}
        for level, number in windows.items():
            weight = sum(r["weight"] for r in drawn if r["level"] == level)
            assert weight == pytest.approx(number)
    return q999


@pytest.mark.parametrize("outliers", [0, 4, 30])
@pytest.mark.parametrize("tail", ["exponential", "lognormal", "jump", "bump"])
def test_no_level_is_short_and_weights_count_every_window(tail: str, outliers: int) -> None:
    """Whatever the peaks' distribution, and whatever a few outliers are."""
    generator = np.random.default_rng(outliers)
    count = 6_000
    values = {
        "exponential": generator.exponential(1, count),
        "lognormal": generator.lognormal(0, 1, count),
        "jump": 1 + generator.exponential(0.3, count),
        "bump": np.where(
            generator.random(count) < 0.02,
            3 + 0.3 * generator.normal(size=count),
            generator.exponential(0.2, count) + 0.01,
        ),
    }[tail].astype(np.float32)
    values[:outliers] *= 100
    assert_levels_are_full(values, one_feature(values, 3))


@pytest.mark.parametrize("below", ["even", "gap", "rare"])
def test_many_peaks_far_above_q999_shorten_no_level(below: str) -> None:
    """More than 32 windows of each split lie 300 times above, yet below 0.1 % of the tokens."""
    generator = np.random.default_rng(1)
    many, some = 5_000, generator.uniform(0.2, 1, 300)
    lower = {
        "even": generator.uniform(0.05, 1, many),
        "gap": np.concatenate([generator.uniform(0.05, 0.1, many), some]),
        # Three windows alone in their level.
        "rare": np.concatenate([np.full(many, 0.05), np.full(3, 0.15), some]),
    }[below]
    peaks = np.concatenate([np.full(90, 300), lower]).astype(np.float32)
    splits = Counter(split_of(f"d{number}") for number in range(90))
    assert min(splits.values()) >= 32
    q999 = assert_levels_are_full(peaks, one_feature(peaks, 20, low=0.04))
    assert 0.5 < q999 < 1.1


def test_below_zero_is_silence() -> None:
    planted = plant(2, 60)
    signed = [np.where(a == 0, np.float32(-3), a) for a in planted.activations]
    below = Planted(planted.texts, signed, planted.content)
    assert parts_of(sketch_of(below, SMALL)) == parts_of(sketch_of(planted, SMALL))


@pytest.mark.proof
def test_every_window_is_drawn_at_the_stated_rate(record_property: Any) -> None:
    """Over 1,000 seeds, of both splits, every level, silent and hard silent windows."""
    planted = plant(3, 400, features=1)
    generator = np.random.default_rng(0)
    for text, activations, content in zip(
        planted.texts, planted.activations, planted.content, strict=True
    ):
        # It fires on two words alone, so that what is near is the same under every seed.
        may = content & (np.array(text.token_ids) % 57 == 0)
        text.token_ids[:] = [t % 2 if t % 57 == 0 else t + 2 for t in text.token_ids]
        fires = may & (generator.random(len(may)) < 0.6)
        activations[:, 0] = fires * generator.lognormal(0, 0.7, len(may))
    chosen = CollectionSettings(top=1, per_level=3, silent=8, hard_silent=5)
    drawn: Counter[tuple[Any, ...]] = Counter()
    rates_of: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for seed in range(1_000):
        settings = SketchSettings(top=1, per_bin=3, silent_sample=100, seed=seed)
        rows = rows_of(
            sketch_of(planted, settings, features=[3], batch=400),
            chosen.model_copy(update={"seed": seed}),
        )
        weights: dict[tuple[Any, ...], float] = {}
        for row in rows:
            if row["sample"] == "random":
                stratum = (row["split"], row["kind"], row["level"])
                drawn[*stratum, row["document"], row["start"]] += 1
                weights[stratum] = row["weight"]
        for stratum, weight in weights.items():
            rates_of[stratum].append(1 / weight)
    (known,) = brute_force(planted, SketchSettings(1, 3, 100, 0), chosen, [3]).values()
    strata: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for window in known["windows"]:
        active = window["peak"] > 0
        kind = "active" if active else "hard_silent" if is_near(window) else "silent"
        stratum = (window["split"], kind, level_of(window["peak"], known["q999"]) if active else 0)
        strata[stratum].append(drawn[*stratum, window["document"], window["start"]])
    assert sum(map(sum, strata.values())) == sum(drawn.values())
    statistic, freedom = 0.0, 0
    for stratum, counts in strata.items():
        rates = np.array(rates_of[stratum])
        assert len(rates) == 1_000  # no stratum is ever left out
        variance = (rates * (1 - rates)).sum()
        if len(counts) > 1 and variance > 0:
            statistic += float(((np.array(counts) - rates.sum()) ** 2).sum()) / variance
            freedom += len(counts)
    pvalue = chi2.sf(statistic, freedom)
    record_property("chi-square", f"{statistic:.0f} on {freedom}, p = {pvalue:.3f}")
    assert len(strata) > 20
    assert freedom > 200
    assert 0.001 < pvalue < 0.999


def is_near(window: dict[str, Any]) -> bool:
    return any(token < 2 for token in window["ids"])
