"""Does the advice name the route that is best, in worlds that chose none of its rules?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sails_worlds import LearnedSae, Parameters, Sides, World, draw, learn
from scipy.stats import binomtest

from safesail.alignment import (
    ContrastTexts,
    Facts,
    advise,
    contrast_features,
    covariance_difference,
    measure_facts,
    projection_distance,
    random_basis,
    raw_difference_pca,
    reduce_weighted,
)
from safesail.errors import AlignmentError

WITHIN = 1.1
"""The advice is right where the advised route's error is at most this times the least one."""


@dataclass(frozen=True)
class Answer:
    """What the advice said of one configuration, and what was true of the routes.

    Attributes:
        seed: of the configuration.
        advised: the route named.
        plain: the route that `plain_rule` names.
        reliable: what the advice said of it.
        estimated: the error that it expected of the route named.
        error: by route, the true error.
    """

    seed: int
    advised: str
    plain: str
    reliable: bool
    estimated: float
    error: dict[str, float]

    @property
    def regret(self) -> float:
        """The advised route's error over the least."""
        return self.error[self.advised] / max(min(self.error.values()), 1e-9)

    def right(self, route: str) -> bool:
        """A route is the best, or within a tenth of it."""
        return self.error[route] <= WITHIN * min(self.error.values()) + 1e-9


def texts_of(sides: Sides, sae: LearnedSae, parameters: Parameters) -> ContrastTexts:
    """Both sides as the library takes them."""
    return ContrastTexts(
        sides.aligned,
        sides.unaligned,
        sae.encode(sides.aligned),
        sae.encode(sides.unaligned),
        paired=parameters.pairing > 0,
    )


def routes_of(texts: ContrastTexts, sae: LearnedSae, rank: int) -> dict[str, NDArray[np.float32]]:
    """Bases of the routes that the advice chooses among, found on all texts."""
    raw = raw_difference_pca(texts.aligned, texts.unaligned, rank, paired=texts.paired)
    found = {
        "raw_pca": raw.basis,
        "cov_diff": covariance_difference(texts.aligned, texts.unaligned, rank).basis,
    }
    contrast = contrast_features(texts.aligned_activations, texts.unaligned_activations)
    chosen = contrast.order()[: 4 * rank]
    try:
        weights = np.abs(contrast.difference[chosen])
        found["learned_sae"] = reduce_weighted(sae.decoder[chosen], weights, rank).basis
    except AlignmentError:  # too few features differ: the route has nothing better to offer
        found["learned_sae"] = random_basis(texts.aligned.shape[1], rank, seed=0).basis
    return found


def plain_rule(facts: Facts) -> str:
    """What a rule without halves and agreement would name: the best of its kind in training.

    Its levels of pairing and density were the best of a grid; FVU and coherence did worse.
    """
    if (facts.pairing or 0) > 0.5:
        return "raw_difference_pca"
    return "covariance_difference" if (facts.density or 0) > 0.02 else "sae"


def advised(seed: int) -> Answer:
    """Ask for advice in the configuration of a seed, and see how the routes do there."""
    parameters = draw(seed)
    world = World(parameters, seed)
    sides, truth = world.sides(), world.truth()
    sae = learn(world, seed)
    texts = texts_of(sides, sae, parameters)
    facts = measure_facts(texts, sae.decoder, parameters.rank, fvu=sae.fvu, l0=sae.l0, seed=seed)
    advice = advise(facts)
    names = {
        "learned_sae": "sae",
        "raw_pca": "raw_difference_pca",
        "cov_diff": "covariance_difference",
    }
    return Answer(
        seed,
        advice.route,
        plain_rule(facts),
        advice.reliable,
        advice.error[advice.route],
        {
            names[name]: projection_distance(basis, truth)
            for name, basis in routes_of(texts, sae, parameters.rank).items()
        },
    )


def judge(answers: Sequence[Answer], prefix: str = "advice") -> dict[str, Any]:
    """How often the advice was right, and how often each route always taken would have been."""

    def share(hits: Sequence[bool]) -> list[float]:
        test = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
        return [float(np.mean(hits)), float(test.low), float(test.high)]

    routes = list(answers[0].error)
    matters = [one for one in answers if not all(one.right(route) for route in routes)]
    right = share([one.right(one.advised) for one in answers])
    plain = share([one.right(one.plain) for one in answers])
    reliable = [one for one in answers if one.reliable]
    return {
        f"{prefix}_share": right[0],
        f"{prefix}_share_interval": right[1:],
        f"{prefix}_configurations": len(answers),
        f"{prefix}_share_where_routes_differ": share([one.right(one.advised) for one in matters]),
        f"{prefix}_configurations_where_routes_differ": len(matters),
        f"{prefix}_of_plain_rule_share": plain,
        f"{prefix}_always": {
            route: float(np.mean([one.right(route) for one in answers])) for route in routes
        },
        f"{prefix}_best": {
            route: sum(min(one.error, key=lambda r: one.error[r]) == route for one in answers)
            for route in routes
        },
        f"{prefix}_given": {r: sum(one.advised == r for one in answers) for r in routes},
        f"{prefix}_regret_quantiles": np.quantile(
            [one.regret for one in answers], [0.5, 0.8, 0.9, 1.0]
        ).tolist(),
        f"{prefix}_called_reliable": len(reliable),
        f"{prefix}_share_where_reliable": share([one.right(one.advised) for one in reliable])
        if reliable
        else None,
        f"{prefix}_estimated_against_true_error": float(
            np.corrcoef(
                [one.estimated for one in answers], [one.error[one.advised] for one in answers]
            )[0, 1]
        )
        if len(answers) > 1
        else None,
    }
