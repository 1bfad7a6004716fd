"""Which route to a subspace fits the data, from facts that need no truth.

Stability alone is no measure of a route: raw-difference PCA of texts that are no pairs, or a poor
SAE, finds the same wrong span again and again. So one direct route that has no error of its own
but too few texts serves as the reference, and what the others share with it is corrected for how
little of the truth it may itself hold: Spearman's correction for attenuation (American Journal of
Psychology 15, 1904), applied to spans. That, the constants and the order of the rules are ours;
docs/sails.md says how they were chosen and how often they are right.

All that supposes that something differs. Hidden states vary far more in some directions than in
others, and any two halves of the same texts share these: so whether labels matter at all is tested
apart, by permuting them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safesail.alignment._facts import MEASURED_ROUTES, Facts
from safesail.alignment._permutation import PERMUTATIONS

PAIRED_FROM = 0.7
"""Share of variance that pairing must remove for raw-difference PCA to be the reference."""
WEAK = 0.5
"""Share of the truth below which no route is to be relied on."""
SIGNIFICANT = 0.01
"""p above which the sides are not known to differ, and no route is to be relied on."""

_NAMES = {
    "sae": "SAE route",
    "raw_difference_pca": "raw-difference PCA",
    "covariance_difference": "covariance difference",
}


@dataclass(frozen=True)
class Advice:
    """A route, and why.

    Attributes:
        route: `sae`, `raw_difference_pca` or `covariance_difference`.
        reasons: one line each, the decisive ones first.
        captured: by route, estimated share of the true subspace that its span holds.
        error: by route, the error ‖P̂ - P‖_F = √(2r(1 - captured)) that goes with it.
        reliable: the sides differ by more than chance, and the advised route is estimated to hold
            at least half of the truth and more stable than where labels are shuffled.
    """

    route: str
    reasons: tuple[str, ...]
    captured: dict[str, float]
    error: dict[str, float]
    reliable: bool


def advise(facts: Facts) -> Advice:
    """Choose the route that is estimated to hold most of the true subspace.

    1. The reference is raw-difference PCA where pairing removes at least PAIRED_FROM of the
       differences' variance, covariance difference otherwise.
    2. What two halves of the texts agree on beyond chance, s, tells that each holds √s of the
       truth, where their errors are independent; all texts then hold 2√s / (1 + √s).
    3. Any other route holds at most what it shares with the reference beyond chance, over what the
       reference holds.
    4. The route that holds most is advised; equals by the order of MEASURED_ROUTES.
    5. It is reliable where it holds WEAK or more, the permutation test's p is SIGNIFICANT or less,
       and halves of the texts have more in common than halves with shuffled labels.
    """
    paired = facts.pairing is not None and facts.pairing >= PAIRED_FROM
    reference = "raw_difference_pca" if paired else "covariance_difference"
    stable = {
        route: _whole(_beyond_chance(facts.stability[route], facts)) for route in MEASURED_ROUTES
    }
    captured = dict(stable)
    for route in MEASURED_ROUTES:
        if route != reference and stable[reference] > 0:
            shared = _beyond_chance(_agreement(facts, route, reference), facts)
            captured[route] = min(stable[route], shared / stable[reference])
    route = max(MEASURED_ROUTES, key=lambda one: captured[one])
    doubts = _doubts(facts, route, captured)
    return Advice(
        route=route,
        reasons=(*_reasons(facts, reference, captured), *doubts),
        captured=captured,
        error={
            one: float(np.sqrt(2 * facts.rank * (1 - share))) for one, share in captured.items()
        },
        reliable=not doubts,
    )


def _beyond_chance(share: float, facts: Facts) -> float:
    """A shared part of spans, 0 at what independent spans share and 1 where they are one."""
    chance = facts.rank / facts.d_model
    return float(np.clip((share - chance) / (1 - chance), 0, 1))


def _whole(halves: float) -> float:
    """Share of the truth that a span of all texts holds, from what spans of halves share.

    A half holds c = √halves. With errors that fall as one over the number of texts, c / (1 - c)
    doubles with them: 2c / (1 + c), the step of Spearman and Brown.
    """
    half = np.sqrt(halves)
    return float(2 * half / (1 + half))


def _agreement(facts: Facts, one: str, two: str) -> float:
    return facts.agreement[(one, two) if (one, two) in facts.agreement else (two, one)]


def _doubts(facts: Facts, route: str, captured: dict[str, float]) -> list[str]:
    """Why the route is not to be relied on, one line each."""
    name, lines = _NAMES[route], []
    if facts.p_value > SIGNIFICANT:
        lines.append(
            "the sides are not known to differ: means as far apart come about with random labels "
            f"too, p {facts.p_value:.3f} where {SIGNIFICANT} or less is asked for; give more texts "
            "or sides that differ more"
        )
    if facts.stability[route] <= facts.shuffled.get(route, 0):
        lines.append(
            f"the {name} is no more stable than with shuffled labels: halves have "
            f"{facts.stability[route]:.2f} in common, with shuffled labels "
            f"{facts.shuffled.get(route, 0):.2f}"
        )
    if captured[route] < WEAK:
        lines.append(
            f"no route holds half of the truth by this estimate, the {name} least badly: "
            "give more texts, closer pairs or a lower rank"
        )
    return lines


def _reasons(facts: Facts, reference: str, captured: dict[str, float]) -> list[str]:
    held = ", ".join(f"{_NAMES[one]} {captured[one]:.2f}" for one in MEASURED_ROUTES)
    lines = [
        f"estimated share of the true subspace: {held}; such shares were judged on synthetic "
        "worlds, never on a language model"
    ]
    if facts.pairing is None:
        lines.append("the texts are no pairs, so the reference is the covariance difference")
    else:
        lines.append(
            f"pairing removes {max(facts.pairing, 0):.0%} of the differences' variance, so the "
            f"reference is the {_NAMES[reference]}"
        )
    common = ", ".join(f"{_NAMES[one]} {facts.stability[one]:.2f}" for one in MEASURED_ROUTES)
    by_chance = ", ".join(f"{_NAMES[one]} {share:.2f}" for one, share in facts.shuffled.items())
    lines.append(
        f"common to two halves of the texts: {common}; with shuffled labels: {by_chance} "
        "(raw-difference PCA is left out: the sign of a difference is nothing to it)"
    )
    lines.append(
        f"that random labels move the sides' means as far apart has p {facts.p_value:.3f} "
        f"({PERMUTATIONS} permutations)"
    )
    for one in MEASURED_ROUTES:
        if one != reference:
            agreed = _agreement(facts, one, reference)
            lines.append(f"the {_NAMES[one]} shares {agreed:.2f} of its span with the reference")
    lines.append(
        f"{facts.texts} texts a side, {facts.texts_per_dimension:.1f} for each of "
        f"{facts.d_model} dimensions; independent spans would share "
        f"{facts.rank / facts.d_model:.2f}"
    )
    lines.append("; ".join(_of_sae(facts)))
    return lines


def _of_sae(facts: Facts) -> list[str]:
    if np.isnan(facts.coherence):
        return ["too few of the SAE's features differ for its route"]
    found = [
        f"each of the features chosen fires on {facts.texts_per_feature:.0f} texts (median), and "
        f"the largest cosine of its direction with another's is {facts.coherence:.2f} (mean)"
    ]
    if facts.density is not None:
        found.append(f"{facts.density:.2%} of the SAE's features fire at once")
    if facts.fvu is not None:
        found.append(f"the SAE leaves {facts.fvu:.0%} of the variance unexplained")
    return found
