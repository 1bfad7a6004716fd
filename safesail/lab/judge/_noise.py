"""A judge's errors: their rates, what all of one prompt share, and the faults of its server.

Everything is drawn from a hash of the seed and of the request, so the same request is answered
alike. With an error shared by a prompt, both error rates of a prompt are shifted together on the
logit scale by a normal effect with standard deviation `prompt_effect`; the shift's centre is chosen
so that the mean rate over prompts is the rate that was set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logit, logsumexp

Floats = NDArray[np.float64]

FALSE_GRADES = (0.5, 0.3, 0.2)
"""Shares of the grades 1, 2 and 3 among false alarms: most of them are doubtful."""

# Nodes and weights for the mean over a standard normal effect.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Quality:
    """How well a judge sees.

    Attributes:
        misses: probability that something present is not seen, each part anew.
        false_alarms: probability per token that something absent is seen; a piece of k tokens has
            1 - (1 - p)^k.
        prompt_effect: standard deviation, in logits, of what one prompt does to both rates.
        bias: added to every grade before it is cut to its range; a fraction is rounded up with
            that probability.
    """

    misses: float = 0.0
    false_alarms: float = 0.0
    prompt_effect: float = 0.0
    bias: float = 0.0

    def rates(self, effect: float) -> tuple[float, float]:
        """Misses and false alarms a token in a prompt with a standard normal effect."""
        return (
            _shifted(self.misses, self.prompt_effect, effect),
            _shifted(self.false_alarms, self.prompt_effect, effect),
        )

    def quadrature(self) -> list[tuple[float, float, float]]:
        """Weight, misses and false alarms at each node of the distribution over prompts."""
        if not self.prompt_effect:
            return [(1.0, self.misses, self.false_alarms)]
        return [
            (float(weight), *self.rates(float(node)))
            for node, weight in zip(_NODES, _WEIGHTS, strict=True)
        ]


@lru_cache(maxsize=100_000)
def _shifted(rate: float, deviation: float, effect: float) -> float:
    if not deviation or not 0 < rate < 1:
        return rate
    return float(expit(_centre(rate, deviation) + deviation * effect))


@lru_cache
def _centre(rate: float, deviation: float) -> float:
    """Logit around which the effect leaves the mean rate as it was set.

    Sought between logarithms and below one half, from where the other half mirrors: rates as small
    as a float can be are then no trouble.
    """
    if rate > 0.5:
        return -_centre(1 - rate, deviation)

    def excess(centre: float) -> float:
        return float(logsumexp(log_expit(centre + deviation * _NODES), b=_WEIGHTS) - np.log(rate))

    # One more, so that the signs differ by more than rounding where the deviation is minute.
    reach = 5 * deviation + deviation**2 + 1
    return float(brentq(excess, logit(rate) - reach, logit(rate) + reach))


QUALITIES: Mapping[str, Quality] = MappingProxyType(
    {
        "perfect": Quality(),
        "good": Quality(0.05, 0.003, 0.4),
        "medium": Quality(0.15, 0.01, 0.6),
        "poor": Quality(0.30, 0.03, 0.7),
    }
)
"""Judges by name.

The prompt effects are set so that the AUROC of 40 items of one prompt, half of them active, varies
about 1.0, 1.3 and 2.2 times as much as that of 40 items from as many prompts. Measured by
simulation: 1.02, 1.41 and 2.40 for the right explanation of a planted concept, 1.02, 1.26 and 2.05
where a fifth of the active items lies outside what is named and a seventh of the silent ones
inside. A test repeats the former.
"""


@dataclass(frozen=True)
class Faults:
    """Shares of requests that go wrong, by kind.

    The first kinds concern the transport and are drawn anew whenever a body comes again;
    `truncated` to `content_filter` are the judge's own answers to a body, the same every time.

    Attributes:
        rate_limited: HTTP 429 with `Retry-After`.
        rate_limited_bare: HTTP 429 without.
        server_error: HTTP 500.
        unavailable: HTTP 503.
        cut: the connection breaks in the middle of the response.
        hang: no response for `hang_seconds`, then the connection breaks.
        no_choices: HTTP 200 without choices.
        truncated: JSON that ends early.
        prose: the answer stands between sentences and a fence.
        wrong_length: the answer's last entry is missing.
        content_filter: HTTP 400 with code `content_filter`.
        hang_seconds: how long a hang lasts.
        retry_after: seconds that `Retry-After` names.
    """

    rate_limited: float = 0.0
    rate_limited_bare: float = 0.0
    server_error: float = 0.0
    unavailable: float = 0.0
    cut: float = 0.0
    hang: float = 0.0
    no_choices: float = 0.0
    truncated: float = 0.0
    prose: float = 0.0
    wrong_length: float = 0.0
    content_filter: float = 0.0
    hang_seconds: float = 1.0
    retry_after: float = 0.05

    @classmethod
    def mixed(cls, share: float, *, hang_seconds: float = 1.0, retry_after: float = 0.05) -> Self:
        """All kinds alike, together that share of requests."""
        each = share / len(TRANSPORT + CONTENT)
        kinds = dict.fromkeys(TRANSPORT + CONTENT, each)
        return cls(**kinds, hang_seconds=hang_seconds, retry_after=retry_after)

    def transport(self, seed: int, body: str, attempt: int) -> str | None:
        """What goes wrong with the n-th request of a body on its way, if anything."""
        return self._pick(TRANSPORT, chance(seed, body, attempt, "transport"))

    def content(self, seed: int, body: str) -> str | None:
        """What is wrong with the answer to a body, if anything."""
        return self._pick(CONTENT, chance(seed, body, "content"))

    def _pick(self, kinds: tuple[str, ...], draw: float) -> str | None:
        for kind in kinds:
            draw -= getattr(self, kind)
            if draw < 0:
                return kind
        return None


TRANSPORT = (
    "rate_limited",
    "rate_limited_bare",
    "server_error",
    "unavailable",
    "cut",
    "hang",
    "no_choices",
)
CONTENT = ("truncated", "prose", "wrong_length", "content_filter")
assert {*TRANSPORT, *CONTENT, "hang_seconds", "retry_after"} == {f.name for f in fields(Faults)}


@dataclass(frozen=True)
class BatchBehaviour:
    """How batches go.

    Attributes:
        delay: seconds from a batch's creation to its end.
        failures: share of requests that end in the error file with HTTP 500; drawn anew for every
            batch that a `custom_id` stands in.
        expiring: so many batches, from the first, expire with every second request unanswered.
        seed: of the failures.
    """

    delay: float = 0.5
    failures: float = 0.0
    expiring: int = 0
    seed: int = 0


def canonical(body: Any) -> str:
    """A request's body in one spelling, whatever the order of its keys."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(body: str) -> str:
    """SHA-256 of a body in its canonical spelling."""
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


def generator(*parts: object) -> np.random.Generator:
    """A generator whose draws depend on the parts alone."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return np.random.Generator(
        np.random.PCG64(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big"))
    )
