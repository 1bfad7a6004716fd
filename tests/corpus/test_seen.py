"""Memory of the texts read: fixed, never forgetting, rarely wrong."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safesail.corpus._seen import SeenTexts


def expected_rate(texts: int, size: int) -> float:
    """Share of new texts taken for old ones after so many texts in so many bytes."""
    return (1 - math.exp(-5 * texts / (8 * size))) ** 5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=60), st.sampled_from([1, 3, 64, 2**16]))
def test_what_was_read_is_never_new_again(texts: list[str], size: int) -> None:
    seen = SeenTexts(size)
    for text in texts:
        seen.add(text)
        assert not seen.add(text)
    assert not any(seen.add(text) for text in texts)


def test_different_texts_are_new_in_a_large_filter() -> None:
    seen = SeenTexts()
    assert all(seen.add(f"text {number}") for number in range(20_000))


@pytest.mark.parametrize("texts_per_byte", [1 / 16, 10 / 16, 20 / 16])
def test_new_texts_are_taken_for_old_ones_as_often_as_said(texts_per_byte: float) -> None:
    """As full as 16 MiB are with 1, 10 and 20 million texts (a mebi and a million differ by 5 %).

    The next texts are told apart against a filter that each of them fills a little more: some.
    """
    size = 2**15
    seen = SeenTexts(size)
    texts, probes = round(texts_per_byte * size), 2_000
    for number in range(texts):
        seen.add(f"text {number}")
    wrong = sum(not seen.add(f"probe {number}") for number in range(probes))
    low, high = (probes * expected_rate(n, size) for n in (texts, texts + probes))
    assert low - 4 * math.sqrt(low) <= wrong <= high + 4 * math.sqrt(high) + 1


def test_the_documented_rates() -> None:
    rates = [expected_rate(million * 10**6, 16 * 2**20) for million in (1, 10, 20)]
    assert rates == pytest.approx([6.5e-8, 0.0029, 0.040], rel=0.02)


_GROWTH = """
from pathlib import Path
from safesail.corpus._seen import SeenTexts

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

seen = SeenTexts()
assert seen.add("text")
before = resident()
for number in range(50_000):
    seen.add(f"text {number}")
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc/self/statm")
def test_memory_is_taken_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 500  # pages, of 4,096 that the filter has
