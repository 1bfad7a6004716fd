"""What there is, against pandas, SciPy and hand-made tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from safesail.diagnosis import (
    EntityProfile,
    ExplainedFeature,
    SurveyedSae,
    entity_profiles,
    plot_landscape,
    survey,
)
from safesail.diagnosis._entities import effective_types
from safesail.diagnosis._map import place_features
from safesail.errors import InputError
from safesail.pipeline import feature_map, landscape
from safesail.study import Study


def test_counts_are_those_of_the_tables(two_layers: Path) -> None:
    found = landscape(Study.open(two_layers))
    assert found.saes == ("first", "upper")
    assert found.layers == 3
    assert found.explained_by == ("lexical",)
    assert found.concepts == ("violence", "violence/assault", "violence/threat", "fraud")
    assert found.top_level == ("violence", "fraud")
    for one in found.counts:
        features = pd.read_parquet(two_layers / "features" / f"{one.sae}.parquet")
        rows = pd.read_parquet(two_layers / "explanations" / f"{one.sae}.parquet")
        mine = features[features["concept"] == one.concept]
        called = set(mine[mine["called"]]["feature"])
        explained = rows[rows["feature"].isin(called) & rows["explanation"].notna()]
        scores = explained["discrimination"].dropna()
        assert (one.chosen, one.called) == (len(mine), len(called))
        assert (one.explained, one.scored) == (len(explained), len(scores))
        assert one.well == (explained["discrimination_low"] > 0.75).sum()
        assert one.median == (pytest.approx(scores.median()) if len(scores) else None)
        if len(scores) > 1:
            assert one.median_low <= one.median <= one.median_high
        assert one.entity_like + one.spread + one.undecided == one.called
    assert {(one.concept, one.layer, one.depth) for one in found.depths} == {
        (concept, layer, layer / 2) for concept in ("violence", "fraud") for layer in (1, 2)
    }
    assert plot_landscape(found).startswith(b"\x89PNG")
    assert set(found.to_json()) == {"version", *vars(found)}


def feature(number: int, low: float | None, sae: str = "a", layer: int = 0) -> ExplainedFeature:
    return ExplainedFeature(
        sae=sae, layer=layer, feature=number, q999=1.0, explanation="words",
        explained_by="lexical", status="scored", concepts=(), labelled_by="choice",
        discrimination=None if low is None else low + 0.05, discrimination_low=low,
        discrimination_high=None if low is None else low + 0.1,
    )  # fmt: skip


def chosen(number: int, concept: str, called: bool = True) -> dict[str, Any]:
    return {"feature": number, "concept": concept, "called": called}


def test_depth_overlap_and_empty_strata_by_hand() -> None:
    low = SurveyedSae(
        "a", 0,
        [chosen(1, "x"), chosen(2, "x"), chosen(2, "y"), chosen(3, "x", False), chosen(4, "y")],
        [feature(1, 0.8), feature(2, 0.76), feature(3, 0.9), feature(4, 0.75)],
        [],
    )  # fmt: skip
    high = SurveyedSae(
        "b", 3, [chosen(1, "x"), chosen(2, "x")], [feature(1, 0.9), feature(2, None)], []
    )
    found = survey([low, high], ["x", "x/child", "y", "z"], layers=4)
    counts = {(one.sae, one.concept): one for one in found.counts}
    of_x = counts["a", "x"]
    assert (of_x.chosen, of_x.called, of_x.explained, of_x.well) == (3, 2, 2, 2)
    assert counts["a", "y"].well == 1, "the bar itself is not above the bar"
    assert (counts["b", "x"].explained, counts["b", "x"].scored) == (2, 1)
    assert counts["b", "x"].median == pytest.approx(0.95)
    assert (counts["b", "x"].median_low, counts["b", "z"].median) == (None, None)
    shares = {(one.concept, one.layer): one for one in found.depths}
    ends = stats.binomtest(2, 3).proportion_ci(method="wilson")
    assert shares["x", 0].share == pytest.approx(2 / 3)
    assert (shares["x", 0].low, shares["x", 0].high) == pytest.approx((ends.low, ends.high))
    assert (shares["x", 0].depth, shares["x", 3].depth) == (0.0, 1.0)
    assert shares["z", 3].share is None
    overlaps = {(one.first, one.second): one for one in found.overlaps}
    assert set(overlaps) == {("x", "y"), ("x", "z"), ("y", "z")}
    # Feature 2 of one SAE is not feature 2 of another.
    assert (overlaps["x", "y"].shared, overlaps["x", "y"].either) == (1, 5)
    assert overlaps["x", "y"].jaccard == pytest.approx(1 / 5)
    assert survey([low], ["z"], layers=None).overlaps == ()
    for one in (found, survey([low], ["z"], layers=None), survey([low], ["x", "z"], layers=None)):
        assert plot_landscape(one).startswith(b"\x89PNG")


def test_the_median_interval_against_scipy() -> None:
    lows = list(np.random.default_rng(3).uniform(0.5, 0.9, 30))
    sae = SurveyedSae(
        "a", 0, [chosen(i, "x") for i in range(30)],
        [feature(i, float(low)) for i, low in enumerate(lows)], [],
    )  # fmt: skip
    (one,) = survey([sae], ["x"], layers=None).counts
    scores = np.array(lows) + 0.05
    expected = stats.bootstrap(
        (scores,), np.median, n_resamples=9999, method="percentile", rng=1
    ).confidence_interval
    assert one.median == pytest.approx(np.median(scores))
    assert one.median_low == pytest.approx(expected.low, abs=0.02)
    assert one.median_high == pytest.approx(expected.high, abs=0.02)


def test_peaks_by_token_type(two_layers: Path) -> None:
    folder = two_layers / "contexts" / "first"
    profiles = entity_profiles(folder, "first", 1)
    table = pd.concat(pd.read_parquet(path) for path in folder.glob("*.parquet"))
    active = table[table["kind"] == "active"]
    assert [one.feature for one in profiles] == sorted(set(active["feature"]))
    for one in profiles:
        mine = active[active["feature"] == one.feature].drop_duplicates(["document", "start"])
        peaks = [
            tokens[place].strip().lower() or tokens[place]
            for tokens, place in zip(mine["tokens"], mine["peak_at"], strict=True)
        ]
        counts = pd.Series(peaks).value_counts()
        assert (one.windows, one.share) == (len(peaks), pytest.approx(counts.max() / len(peaks)))
        assert counts[one.token] == counts.max()
        assert one.types == pytest.approx(np.exp(stats.entropy(counts)))
        assert one.kind == kind_of(one)


def kind_of(one: EntityProfile) -> str:
    if one.share_low > 0.5:
        return "entity-like"
    return "spread" if one.share_high < 0.5 else "undecided"


def test_effective_types_and_their_interval() -> None:
    assert effective_types([40]) == (1.0, 1.0, 1.0)
    assert effective_types([10] * 8)[0] == pytest.approx(8)
    random = np.random.default_rng(0)
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    truth = np.exp(stats.entropy(shares))
    held = 0
    for _ in range(200):
        drawn = [count for count in random.multinomial(100, shares) if count]
        _, low, high = effective_types(drawn)
        held += low <= truth <= high
    assert held >= 180


def test_a_map_is_deterministic_and_kept(two_layers: Path, copy: Callable[[Path], Path]) -> None:
    folder = copy(two_layers)
    study = Study.open(folder)
    rows = feature_map(study, "first")
    path = folder / "landscape" / "first.parquet"
    assert pd.read_parquet(path)["feature"].tolist() == [row["feature"] for row in rows]
    assert feature_map(study, "first") == rows
    path.unlink()
    assert feature_map(study, "first") == rows
    features = pd.read_parquet(folder / "features" / "first.parquet")
    assert [row["feature"] for row in rows] == sorted(set(features["feature"]))
    told = pd.read_parquet(folder / "explanations" / "first.parquet").dropna(subset="explanation")
    assert {row["feature"] for row in rows if row["explanation"]} == set(told["feature"])
    # What is said of a feature is that of today, wherever its place was kept.
    shutil.rmtree(folder / "explanations")
    assert all(row["explanation"] is None for row in feature_map(study, "first"))
    with pytest.raises(InputError, match="no features of SAE 'nobody'"):
        feature_map(study, "nobody")


def test_neighbours_on_the_map_write_alike() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 64))
    group = np.repeat(np.arange(4), 25)
    rows = centres[group] + 0.2 * random.normal(size=(100, 64))
    directions = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    places = place_features(directions)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(1)] == group).mean() > 0.95
    assert np.array_equal(places, place_features(directions))


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10])
def test_few_features_have_places_too(count: int) -> None:
    directions = np.eye(16, dtype=np.float32)[:count]
    places = place_features(directions)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


def test_a_study_without_explanations_says_what_to_run(fresh: Path) -> None:
    with pytest.raises(InputError, match=r"run `safesail explain` first"):
        landscape(Study.open(fresh))
