"""Windows tile the corpus, draws are uniform and free of order, strata are what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from safesail.contexts._choose import Choice, TypicalTokens, choose, levels, window_peaks
from safesail.contexts._windows import WINDOW_TOKENS, Windows, split_of
from safesail.language_model import TokenizedText
from safesail.study import CollectionSettings


def text(document: str, tokens: int, start: int = 0) -> TokenizedText:
    return TokenizedText(document, start, [7] * tokens, ["x"] * tokens)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=12).filter(any))
@settings(deadline=None)
def test_windows_tile_every_text(lengths: list[int]) -> None:
    windows = Windows.of([text(str(n), tokens) for n, tokens in enumerate(lengths)])
    assert windows.begin.tolist() == [0, *windows.end.tolist()[:-1]]
    sizes = windows.end - windows.begin
    owners = [number for number, size in enumerate(sizes) for _ in range(size)]
    assert windows.of_token.tolist() == owners
    for number, tokens in enumerate(lengths):
        own = sizes[windows.text == number].tolist()
        assert sum(own) == tokens
        assert len(own) == -(-tokens // WINDOW_TOKENS)
        assert max(own, default=0) <= WINDOW_TOKENS
        assert max(own, default=0) - min(own, default=0) <= 1


def test_a_document_serves_one_purpose() -> None:
    texts = [text(f"d{n % 40}", 70, start=63 * (n // 40)) for n in range(120)]
    windows = Windows.of(texts)
    for number, split in zip(windows.text, windows.split, strict=True):
        assert ("explain", "score")[split] == split_of(texts[number].document)
    assert set(windows.split) == {0, 1}
    splits = Counter(split_of(f"document {n}") for n in range(4_000))
    assert abs(splits["score"] - 2_000) < 4 * np.sqrt(1_000)


def test_keys_tell_pieces_of_a_document_apart() -> None:
    windows = Windows.of([text("d", 64), text("d", 64, start=64), text("e", 64)])
    assert len(set(windows.key.tolist())) == 6


def test_priorities_are_uniform_and_independent_of_split_and_feature() -> None:
    windows = Windows.of([text(str(n), 32) for n in range(5_000)])
    drawn = {feature: windows.priorities(feature, 0) / 2.0**64 for feature in (1, 2)}
    for values in drawn.values():
        assert kstest(values, "uniform").pvalue > 0.001
        assert kstest(values[windows.split == 0], "uniform").pvalue > 0.001
    assert abs(np.corrcoef(drawn[1], drawn[2])[0, 1]) < 4 / np.sqrt(5_000)
    assert abs(np.corrcoef(drawn[1][:-1], drawn[1][1:])[0, 1]) < 4 / np.sqrt(5_000)
    assert (windows.priorities(1, 0) == windows.priorities(1, 0)).all()
    assert (windows.priorities(1, 0) != windows.priorities(1, 1)).all()


def test_priorities_do_not_depend_on_order() -> None:
    texts = [text(str(n), 10 + n) for n in range(60)]

    def named(order: list[TokenizedText]) -> dict[tuple[str, int], int]:
        windows = Windows.of(order)
        offsets = np.cumsum([0, *(len(t.token_ids) for t in order)])
        places = zip(windows.text, windows.begin, windows.priorities(3, 9), strict=True)
        return {(order[t].document, int(b - offsets[t])): int(p) for t, b, p in places}

    assert named(texts) == named(texts[::-1])


def test_levels_are_tenths_of_q999() -> None:
    peaks = np.array([0.01, 0.2, 0.22, 1.9, 2.0, 3.4])
    assert levels(peaks, 2.0).tolist() == [1, 1, 2, 10, 10, 10]


def test_window_peaks_by_loop() -> None:
    generator = np.random.default_rng(0)
    windows = Windows.of([text(str(n), 50) for n in range(20)])
    tokens = np.flatnonzero(generator.random(1_000) < 0.02)
    values = generator.random(len(tokens)).astype(np.float32)
    active, peaks = window_peaks(windows, tokens, values)
    expected: dict[int, float] = {}
    for token, value in zip(tokens, values, strict=True):
        window = int(windows.of_token[token])
        expected[window] = max(expected.get(window, 0.0), float(value))
    assert dict(zip(active.tolist(), peaks.tolist(), strict=True)) == expected
    assert window_peaks(windows, tokens[:0], values[:0])[0].tolist() == []


SETTINGS = CollectionSettings(top=6, per_level=3, silent=20, hard_silent=15)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows.of([text(str(n), 32) for n in range(900)])


def chosen_from(windows: Windows, seed: int = 0) -> tuple[list[Choice], NDArray, NDArray, NDArray]:
    generator = np.random.default_rng(5)
    active = np.flatnonzero(generator.random(900) < 0.3)
    peaks = generator.random(len(active)) * 1.2
    near = np.flatnonzero(generator.random(900) < 0.2)
    found = list(choose(windows, active, peaks, near, 1.0, windows.priorities(1, seed), SETTINGS))
    return found, active, peaks, near


def test_every_choice_is_in_its_stratum(windows: Windows) -> None:
    found, active, peaks, near = chosen_from(windows)
    peak_of = dict(zip(active.tolist(), peaks.tolist(), strict=True))
    for one in found:
        assert windows.split[one.window] == ("explain", "score").index(one.split)
        if one.kind == "active":
            assert one.peak == peak_of[one.window]
            assert one.level == min(10, int(np.ceil(10 * one.peak)))
        else:
            assert one.window not in peak_of
            assert (one.kind == "hard_silent") == (one.window in near)
            assert (one.level, one.peak) == (0, 0.0)


def test_strata_are_disjoint_and_weights_give_their_sizes(windows: Windows) -> None:
    found, active, peaks, near = chosen_from(windows)
    drawn = [one for one in found if one.sample == "random"]
    assert len({one.window for one in drawn}) == len(drawn)
    for number, split in enumerate(("explain", "score")):
        mine = windows.split == number
        here = mine[active]
        sizes = {
            ("active", level): int((levels(peaks, 1.0)[here] == level).sum())
            for level in range(1, 11)
        }
        silent = mine & ~np.isin(np.arange(900), active)
        is_near = np.isin(np.arange(900), near)
        sizes[("hard_silent", 0)] = int((silent & is_near).sum())
        sizes[("silent", 0)] = int((silent & ~is_near).sum())
        limits = {"active": 3, "silent": 20, "hard_silent": 15}
        for (kind, level), size in sizes.items():
            weights = [
                o.weight for o in drawn if (o.split, o.kind, o.level) == (split, kind, level)
            ]
            assert len(weights) == min(size, limits[kind])
            assert sum(weights) == pytest.approx(size)


def test_the_strongest_are_kept_and_are_no_sample(windows: Windows) -> None:
    found, active, peaks, _ = chosen_from(windows)
    for number, split in enumerate(("explain", "score")):
        top = [one for one in found if one.sample == "top" and one.split == split]
        here = windows.split[active] == number
        assert [one.peak for one in top] == sorted(peaks[here], reverse=True)[:6]
        assert all(np.isnan(one.weight) for one in top)


def test_equal_peaks_are_chosen_without_regard_to_order() -> None:
    texts = [text(str(n), 32) for n in range(200)]

    def documents(order: list[TokenizedText]) -> set[str]:
        windows = Windows.of(order)
        everywhere = np.arange(200)
        choices = choose(
            windows, everywhere, np.ones(200), everywhere, 1.0, windows.priorities(1, 0), SETTINGS
        )
        return {order[one.window].document for one in choices if one.sample == "top"}

    assert documents(texts) == documents(texts[::-1])


@pytest.mark.proof
def test_draws_are_uniform_within_a_stratum(windows: Windows) -> None:
    """Over many seeds every window of a stratum is drawn equally often."""
    counts: Counter[int] = Counter()
    stratum: set[int] = set()
    for seed in range(600):
        found, active, _, near = chosen_from(windows, seed)
        counts.update(o.window for o in found if (o.split, o.kind) == ("score", "silent"))
        stratum = set(np.flatnonzero(windows.split == 1)) - set(active) - set(near)
    assert set(counts) == stratum
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_near_windows_hold_the_tokens_it_is_strongest_on() -> None:
    ids = np.arange(40)
    texts = [TokenizedText(str(n), 0, ids[[n % 40] * 8].tolist(), ["x"] * 8) for n in range(80)]
    windows = Windows.of(texts)
    token_ids = np.concatenate([np.array(t.token_ids) for t in texts])
    fires = np.flatnonzero((token_ids < 15) & (windows.of_token < 40))
    # Token type n has a mean activation of 15 - n over half of its occurrences.
    near = TypicalTokens(windows, token_ids).windows_near(fires, 15.0 - token_ids[fires])
    assert sorted(near) == [*range(10), *range(40, 50)]
    assert not len(TypicalTokens(windows, token_ids).windows_near(fires[:0], np.empty(0)))
