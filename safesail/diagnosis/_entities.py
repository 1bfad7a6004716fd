"""Whether a feature stands for an entity, a word say, or is spread over many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

Kind = Literal["entity-like", "spread", "undecided"]

ENTITY_SHARE = 0.5
"""A feature is entity-like where one token type has more than this share of its peaks: our
choice."""
_RESAMPLES = 1000
_COLUMNS = ["feature", "kind", "document", "start", "tokens", "peak_at"]


@dataclass(frozen=True)
class EntityProfile:
    """Which token types a feature's active windows peak at.

    A type is a token's text without the spaces around it, in lower case.

    Attributes:
        sae: name of the SAE.
        layer: its layer.
        feature: the feature.
        windows: active windows kept of it: the strongest, and some drawn of each level; one that
            is both counts once.
        token: the most frequent type.
        share: of the windows that peak at it.
        share_low: lower end of its 95 % Wilson interval.
        share_high: upper end.
        types: effective number of types: exp of the entropy of their shares.
        types_low: lower end of its 95 % interval, basic bootstrap over windows.
        types_high: upper end.
        kind: `entity-like` where the whole interval of `share` lies above a half, `spread` where
            it lies below, else `undecided`.
    """

    sae: str
    layer: int
    feature: int
    windows: int
    token: str
    share: float
    share_low: float
    share_high: float
    types: float
    types_low: float
    types_high: float
    kind: Kind


def entity_profiles(folder: Path, sae: str, layer: int) -> list[EntityProfile]:
    """Profiles of the features that have active windows, by index.

    Args:
        folder: of the SAE's context shards.
        sae: its name.
        layer: its layer.
    """
    peaks: dict[int, dict[tuple[str, int], str]] = {}
    for shard in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(shard, columns=_COLUMNS, partitioning=None)
        table = table.filter(pc.equal(table["kind"], "active"))
        for row in table.to_pylist():
            place = row["document"], row["start"]
            peaks.setdefault(row["feature"], {})[place] = _type(row["tokens"][row["peak_at"]])
    return [
        _profile(sae, layer, feature, Counter(peaks[feature].values())) for feature in sorted(peaks)
    ]


def _type(token: str) -> str:
    return token.strip().lower() or token


def _profile(sae: str, layer: int, feature: int, counts: Counter[str]) -> EntityProfile:
    from scipy import stats

    windows = counts.total()
    token, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
    ends = stats.binomtest(most, windows).proportion_ci(method="wilson")
    kind: Kind = "undecided"
    if ends.low > ENTITY_SHARE:
        kind = "entity-like"
    elif ends.high < ENTITY_SHARE:
        kind = "spread"
    types, low, high = effective_types(counts.values())
    return EntityProfile(
        sae=sae,
        layer=layer,
        feature=feature,
        windows=windows,
        token=token,
        share=most / windows,
        share_low=float(ends.low),
        share_high=float(ends.high),
        types=types,
        types_low=low,
        types_high=high,
        kind=kind,
    )


def effective_types(counts: Iterable[int], seed: int = 0) -> tuple[float, float, float]:
    """exp of the entropy of shares, with its 95 % interval.

    The entropy of a sample is too low, and that of a resample lower still: the basic bootstrap
    turns that round. No end lies below 1.

    Args:
        counts: windows of each type.
        seed: of the resamples.
    """
    found = np.array(sorted(counts, reverse=True))
    total = int(found.sum())
    value = float(_effective(found[None] / total)[0])
    drawn = np.random.default_rng(seed).multinomial(total, found / total, size=_RESAMPLES)
    low, high = np.quantile(_effective(drawn / total), [0.025, 0.975])
    return value, max(1.0, float(2 * value - high)), max(1.0, float(2 * value - low))


def _effective(shares: np.ndarray) -> np.ndarray:
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: np.ndarray = np.exp(-(shares * logs).sum(axis=1))
    return found
