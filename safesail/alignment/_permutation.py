"""Whether two sides differ in their means at all, by permuted labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._direct import differences

Values = NDArray[np.floating[Any]]

PERMUTATIONS = 199
"""Of labels: the least p that they find is 1 / 200."""


def p_value(
    aligned: Values, unaligned: Values, *, paired: bool, generator: np.random.Generator
) -> float:
    """Permutation test that the sides' mean hidden states differ.

    The statistic, our choice, is the sum over dimensions of the squared difference of means, each
    in units of the texts' spread in that dimension: a few of large variance do not decide.
    Labels are permuted among all texts; in pairs the signs of differences are flipped. The data as
    they are count as one permutation (Phipson and Smyth, Statistical Applications in Genetics and
    Molecular Biology 9, 2010), which makes the test exact.

    Args:
        aligned: [texts, dimensions].
        unaligned: the same of the other side.
        paired: row i of both is one pair.
        generator: of the labels.
    """
    if paired:
        rows = differences(aligned, unaligned, paired=True).astype(np.float64)
        labels = np.ones((PERMUTATIONS + 1, len(rows)))
        labels[1:] = generator.choice([-1.0, 1.0], (PERMUTATIONS, len(rows)))
    else:
        rows = np.concatenate([aligned, unaligned]).astype(np.float64)
        rows -= rows.mean(axis=0)
        labels = np.tile(np.arange(len(rows)) < len(aligned), (PERMUTATIONS + 1, 1))
        labels[1:] = generator.permuted(labels[1:], axis=1)
    # Neither the spread nor the count of texts changes with labels, and the rows of all texts sum
    # to 0: the sum over a side stands for the difference of means.
    spread = np.sqrt(np.mean(rows**2, axis=0))
    rows /= np.where(spread > 0, spread, 1)
    found = np.sum((labels.astype(np.float64) @ rows) ** 2, axis=1)
    # Labellings that are equal by the data's symmetry differ by rounding.
    return float(np.mean(found >= found[0] * (1 - 1e-9)))
