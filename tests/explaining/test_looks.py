"""Critical values against SciPy's multivariate normal law, published tables and a random walk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safesail.explaining._looks import ERROR, critical_values, spent

PLANS = [(1.0,), (0.58, 1.0), (0.4, 0.8, 1.0), (0.25, 0.5, 0.75, 1.0)]


@pytest.mark.parametrize("times", PLANS)
def test_all_looks_together_err_as_often_as_was_spent(times: tuple[float, ...]) -> None:
    bounds = np.array(critical_values(times))
    moments = np.array(times)
    correlation = np.sqrt(np.minimum.outer(moments, moments) / np.maximum.outer(moments, moments))
    for last in range(1, len(times) + 1):
        law = stats.multivariate_normal(cov=correlation[:last, :last], seed=0)
        held = law.cdf(bounds[:last], lower_limit=-bounds[:last])
        assert 1 - held == pytest.approx(spent(times[last - 1]), abs=2e-5)
    assert spent(1.0) == ERROR == 0.05


def test_one_look_is_the_usual_interval() -> None:
    assert critical_values((1.0,)) == pytest.approx((1.959964,), abs=1e-6)


def test_values_do_not_depend_on_later_looks() -> None:
    assert critical_values((0.25, 0.5, 0.75, 1.0))[:2] == critical_values((0.25, 0.5))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=4, unique=True))
def test_looking_costs_width(numbers: list[int]) -> None:
    times = tuple(number / 100 for number in sorted(numbers))
    for time, value in zip(times, critical_values(times), strict=True):
        assert value >= stats.norm.ppf(1 - spent(time) / 2) - 1e-6


def test_a_random_walk_stays_within_them() -> None:
    rng = np.random.default_rng(0)
    sums = np.cumsum(rng.normal(size=(200_000, 4)), axis=1) / np.sqrt(np.arange(1, 5))
    inside = np.abs(sums) <= critical_values((0.25, 0.5, 0.75, 1.0))
    assert inside.all(axis=1).mean() == pytest.approx(0.95, abs=0.002)


@pytest.mark.parametrize("times", [(), (0.5, 0.5), (0.5, 0.2), (0.0, 1.0), (0.5, 1.1), (0.1,) * 5])
def test_times_that_are_no_plan_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="looks"):
        critical_values(times)
