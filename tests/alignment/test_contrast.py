"""The contrast of features: against SciPy, and where it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ttest_ind, ttest_rel

from safesail.alignment import contrast_features, raw_difference_pca
from safesail.errors import AlignmentError


def sides(seed: int, features: int = 6) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    aligned = generator.exponential(size=(40, features)) * (generator.random((40, features)) < 0.4)
    unaligned = generator.exponential(size=(40, features)) * (
        generator.random((40, features)) < 0.6
    )
    return aligned, unaligned


def test_the_default_is_the_signed_mean_difference_ranked_by_size() -> None:
    aligned = np.array([[3.0, 0.0, 1.0], [5.0, 0.0, 1.0]])
    unaligned = np.array([[1.0, 6.0, 1.0], [1.0, 4.0, 1.0]])
    found = contrast_features(aligned, unaligned)
    assert found.value.tolist() == [3.0, -5.0, 0.0]
    assert found.order().tolist() == [1, 0]  # a feature that does not differ is not chosen


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_t_is_welchs_and_in_pairs_the_paired_one(seed: int) -> None:
    aligned, unaligned = sides(seed)
    welch = ttest_ind(aligned, unaligned, equal_var=False).statistic
    paired = ttest_rel(aligned, unaligned).statistic
    for expected, pairs in ((welch, False), (paired, True)):
        found = contrast_features(aligned, unaligned, contrast="t", paired=pairs)
        np.testing.assert_allclose(found.value, expected, rtol=1e-9)


def test_relative_does_not_collapse_on_rare_features() -> None:
    generator = np.random.default_rng(1)
    aligned, unaligned = np.zeros((500, 40)), np.zeros((500, 40))
    # One feature doubles; thirty-nine fire on one text or two, by chance on the aligned side.
    aligned[:, 0] = generator.random(500) < 0.6
    unaligned[:, 0] = generator.random(500) < 0.3
    for feature in range(1, 40):
        aligned[generator.integers(500, size=2), feature] = 1.0
    floored = contrast_features(aligned, unaligned, contrast="relative")
    bare = contrast_features(aligned, unaligned, contrast="relative", least_frequency=1e-9)
    assert floored.order().tolist() == [0]
    assert floored.value[0] == pytest.approx(aligned.mean(0)[0] / unaligned.mean(0)[0] - 1)
    assert bare.order()[-1] == 0  # without a floor whatever is rare comes before it


def test_a_feature_that_always_differs_by_the_same_has_a_finite_t() -> None:
    aligned, unaligned = np.full((5, 2), 2.0), np.full((5, 2), 1.0)
    unaligned[:, 1] = [1.0, 2.0, 1.0, 2.0, 1.5]
    found = contrast_features(aligned, unaligned, contrast="t")
    assert np.isfinite(found.value).all()
    assert found.order()[0] == 0


def test_identical_sets_are_refused() -> None:
    aligned, _ = sides(1)
    with pytest.raises(AlignmentError, match="the same to the model"):
        contrast_features(aligned, aligned.copy())


def test_sets_that_are_the_same_but_for_rounding_are_refused() -> None:
    aligned, _ = sides(1)
    noise = np.random.default_rng(2).standard_normal(aligned.shape)
    # A large dimension, as models have them, rounds in steps that small ones do not know.
    aligned[:, 0] += 3000
    rounded = (aligned + 1e-3 * noise).astype(np.float32)
    for scale in (1e-6, 1.0, 1e6):
        with pytest.raises(AlignmentError, match="the same to the model"):
            raw_difference_pca(scale * aligned, scale * rounded, 2, paired=True)
    # One text that is another is enough: the others may be the same.
    rounded[7] = aligned[8]
    rounded[7, 0] += 3
    raw_difference_pca(aligned, rounded, 2, paired=True)


def test_too_few_texts_and_broken_values_are_refused() -> None:
    aligned, unaligned = sides(1)
    with pytest.raises(AlignmentError, match="1 aligned and 40 unaligned texts"):
        contrast_features(aligned[:1], unaligned)
    aligned[0, 0] = np.nan
    with pytest.raises(AlignmentError, match="not all finite"):
        contrast_features(aligned, unaligned)
    with pytest.raises(ValueError, match="no pairs"):
        contrast_features(unaligned[:3], unaligned, paired=True)
