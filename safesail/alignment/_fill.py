"""Bases of too few directions filled up, so that a control has as many parameters as the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from safesail.alignment._subspace import Subspace
from safesail.errors import AlignmentError


def fill_subspace(subspace: Subspace, rank: int, *, seed: int = 0) -> Subspace:
    """Bases of at least a rank: what is missing is filled with random orthonormal directions.

    A single difference of means has rank one; an adapter of rank one beside others of rank 16
    would show the rank and not the direction. The basis' own directions stay the first. The route
    says it: ` + random`.

    Args:
        subspace: its bases of that rank or more stay as they are.
        rank: at most the width of the stream.
        seed: of the random directions.

    Raises:
        AlignmentError: the stream has fewer dimensions than that.
    """
    for layer in subspace.layers:
        if rank > layer.basis.shape[0]:
            raise AlignmentError(
                f"rank {rank} in a stream of {layer.basis.shape[0]} dimensions: choose a lower one"
            )
    generator = np.random.default_rng(seed)
    layers = []
    for layer in subspace.layers:
        basis = layer.basis.astype(np.float64)
        missing = rank - basis.shape[1]
        if missing > 0:
            drawn = generator.standard_normal((basis.shape[0], missing))
            # Twice, for rounding leaves a rest of the basis after the first time.
            for _ in range(2):
                drawn -= basis @ (basis.T @ drawn)
                drawn = np.linalg.qr(drawn)[0]
            filled = np.concatenate([basis, drawn], axis=1).astype(np.float32)
            layer = replace(layer, basis=filled)
        layers.append(layer)
    changed = any(new is not old for new, old in zip(layers, subspace.layers, strict=True))
    route = f"{subspace.route} + random" if changed else subspace.route
    return replace(subspace, layers=tuple(layers), route=route)
