"""Each route by its name gives a layer that can be kept, and is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from safesail.alignment import (
    ContrastTexts,
    layer_by_route,
    projection_distance,
    raw_difference_pca,
)
from safesail.alignment._names import ROUTES, Route
from safesail.errors import AlignmentError

RANK, DIMENSIONS, FEATURES = 3, 20, 40


def texts() -> tuple[ContrastTexts, NDArray[np.float64]]:
    generator = np.random.default_rng(1)
    decoder = generator.standard_normal((FEATURES, DIMENSIONS))
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    codes = generator.exponential(size=(2, 80, FEATURES)) * (
        generator.random((2, 80, FEATURES)) < 0.1
    )
    codes[0, :, :RANK] += 2.0 * (generator.random((80, RANK)) < 0.7)
    hidden = codes @ decoder
    return ContrastTexts(hidden[0], hidden[1], codes[0], codes[1], paired=True), decoder


def layer(route: Route, rank: int = RANK, **options: object):  # type: ignore[no-untyped-def]
    found, decoder = texts()
    return layer_by_route(
        route, found, decoder, rank,
        stream=3, hook_point="blocks.2.hook_resid_post", sae="a", **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_an_orthonormal_basis_and_the_same_one_again(route: Route) -> None:
    found, _ = layer(route)
    rank = 1 if route == "mean_difference" else RANK
    assert found.basis.shape == (DIMENSIONS, rank)
    assert found.basis.dtype == np.float32
    assert found.rank == rank
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(rank), atol=1e-5)
    np.testing.assert_array_equal(found.basis, layer(route)[0].basis)
    assert (found.stream, found.hook_point) == (3, "blocks.2.hook_resid_post")
    of_sae = route in ("sae", "random_features", "shuffled_labels")
    assert found.sae == ("a" if of_sae else "")
    assert bool(found.features) == of_sae


def test_the_sae_route_finds_what_shifted_and_shuffled_labels_do_not() -> None:
    _, decoder = texts()
    truth = np.linalg.qr(decoder[:RANK].T)[0]
    assert projection_distance(layer("sae")[0].basis, truth) < 0.5
    assert projection_distance(layer("shuffled_labels")[0].basis, truth) > 0.8
    shuffled = {one.feature: one.contrast for one in layer("shuffled_labels")[0].features}
    assert max(map(abs, shuffled.values())) < 0.8  # 1.4 is what shifted


def test_the_direct_route_knows_its_pairs() -> None:
    found, _ = texts()
    expected = raw_difference_pca(found.aligned, found.unaligned, RANK, paired=True)
    np.testing.assert_array_equal(layer("raw_difference_pca")[0].basis, expected.basis)


def test_random_features_and_seeds() -> None:
    explanations = {number: (f"says {number}", ("c",)) for number in range(FEATURES)}
    found, _ = layer("random_features", explanations=explanations, seed=4)
    assert len({one.feature for one in found.features}) == 4 * RANK
    assert all(one.explanation == f"says {one.feature}" for one in found.features)
    other, _ = layer("random_features", seed=5)
    assert projection_distance(found.basis, other.basis) > 0.1


def test_an_unknown_route_and_too_few_features_are_refused() -> None:
    with pytest.raises(ValueError, match="no route 'nonsense'"):
        layer("nonsense")  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="2 features to choose from, fewer than rank 3"):
        layer("sae", among=[0, 1])
