"""Which features tell aligned texts from unaligned ones, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safesail.errors import AlignmentError

Contrast = Literal["abs", "t", "relative"]

LEAST_FREQUENCY = 0.02
"""Share of texts that a feature must fire on for its relative difference to count."""
ROUNDING = 1e-4
"""Distance of two rows, over the first one's norm, up to which they count as the same text.

The same text in another batch differs by rounding: about 1e-6 in float32.
"""


@dataclass(frozen=True)
class FeatureContrast:
    """How features differ between aligned and unaligned texts.

    Attributes:
        value: float64 [features], of the contrast asked for, aligned minus unaligned; 0 for
            features that the contrast leaves out.
        difference: float64 [features], mean activation on aligned less that on unaligned texts.
    """

    value: NDArray[np.float64]
    difference: NDArray[np.float64]

    def order(self) -> NDArray[np.int64]:
        """Features by absolute value, largest first, without those of value 0; equals by index."""
        order = np.argsort(-np.abs(self.value), kind="stable")
        return order[self.value[order] != 0]


def contrast_features(
    aligned: NDArray[np.floating[Any]],
    unaligned: NDArray[np.floating[Any]],
    *,
    contrast: Contrast = "abs",
    paired: bool = False,
    least_frequency: float = LEAST_FREQUENCY,
) -> FeatureContrast:
    """Contrast the features' activations on aligned texts with those on unaligned ones.

    SAILS (arXiv 2512.23260) is reported to rank features by the mean difference, relative in its
    first version and absolute in its second; `t` and the floor of `relative` are ours.

    Args:
        aligned: [texts, features], each text pooled over its response's or its prompt's tokens.
        unaligned: the same of unaligned texts, in the order of the aligned ones where paired.
        contrast: `abs` is the mean difference; `t` Welch's t statistic (Welch 1947), where paired
            the t statistic of the pairs' differences; `relative` the mean difference over the
            mean on unaligned texts.
        paired: row i of both is one pair.
        least_frequency: of `relative` alone: features that fire on a smaller share of all texts
            are left out, and a mean on unaligned texts below that share of the mean over texts on
            which the feature fires counts as that. Without it rare features come first by chance.

    Raises:
        AlignmentError: both sets are the same, hold too few texts, or values that are not finite.
        ValueError: shapes do not fit.
    """
    first, second = _checked(aligned, unaligned, paired=paired)
    difference = first.mean(axis=0) - second.mean(axis=0)
    if contrast == "abs":
        return FeatureContrast(difference, difference)
    if contrast == "t":
        return FeatureContrast(_t(first, second, difference, paired=paired), difference)
    both = np.concatenate([first, second])
    frequency = (both != 0).mean(axis=0)
    active = both.mean(axis=0) / np.maximum(frequency, 1 / len(both))
    floor = np.maximum(second.mean(axis=0), least_frequency * active)
    value = np.divide(difference, floor, out=np.zeros_like(difference), where=floor > 0)
    value[frequency < least_frequency] = 0
    return FeatureContrast(value, difference)


def check_sides(
    aligned: NDArray[np.floating[Any]], unaligned: NDArray[np.floating[Any]], *, paired: bool
) -> None:
    """Refuse sets of texts that nothing can be learnt from.

    Raises:
        AlignmentError: both sets are the same but for rounding, hold too few texts, or values that
            are not finite.
        ValueError: shapes do not fit.
    """
    if aligned.ndim != 2 or unaligned.ndim != 2 or aligned.shape[1] != unaligned.shape[1]:
        raise ValueError(f"shapes {aligned.shape} and {unaligned.shape} are no two sets of texts")
    if paired and len(aligned) != len(unaligned):
        raise ValueError(f"{len(aligned)} aligned and {len(unaligned)} unaligned are no pairs")
    if min(len(aligned), len(unaligned)) < 2:
        raise AlignmentError(
            f"{len(aligned)} aligned and {len(unaligned)} unaligned texts: a contrast needs at "
            "least 2 of each"
        )
    if not (np.isfinite(aligned).all() and np.isfinite(unaligned).all()):
        raise AlignmentError(
            "the texts' activations are not all finite: read them again in float32 or bfloat16"
        )
    if len(aligned) == len(unaligned) and _same(aligned, unaligned):
        raise AlignmentError(
            "aligned and unaligned texts are the same to the model: give two different sets"
        )


def _same(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> bool:
    """Every row of both is the same but for rounding."""
    for one, two in zip(first, second, strict=True):
        row = one.astype(np.float64)
        if np.linalg.norm(row - two) > ROUNDING * np.linalg.norm(row):
            return False
    return True


def _checked(
    aligned: NDArray[np.floating[Any]], unaligned: NDArray[np.floating[Any]], *, paired: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    check_sides(aligned, unaligned, paired=paired)
    return aligned.astype(np.float64), unaligned.astype(np.float64)


def _t(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    difference: NDArray[np.float64],
    *,
    paired: bool,
) -> NDArray[np.float64]:
    if paired:
        variance = (first - second).var(axis=0, ddof=1) / len(first)
    else:
        variance = first.var(axis=0, ddof=1) / len(first)
        variance = variance + second.var(axis=0, ddof=1) / len(second)
    error = np.sqrt(variance)
    # A feature that differs without any spread is told apart perfectly; t would be infinite.
    error = np.maximum(error, 1e-9 * np.abs(difference))
    return np.divide(difference, error, out=np.zeros_like(difference), where=error > 0)
