"""What active choice of features saves, for `judge_cost.py`."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from judge_bench import Bench, Row, tokens
from judge_truth import true_discrimination

from safesail.explaining import Chooser, Scoring, is_findable, prospects_of

_SHARE_TO_FIND = 0.8
# Features for each findable one, and how many there are at least.
_FEATURES_PER_FINDABLE, _FEWEST = 5, 500
_SEEDS, _RANDOM_ORDERS = 3, 200


def active_choice(bench: Bench) -> dict[str, Any]:
    """Tokens until 80 % of the findable features are found: by choice, at random, by an oracle.

    A feature is findable where its explanation is of its concept and the true discrimination
    exceeds 0.75. The pool holds all findable ones and others drawn at random, five features for
    each findable one and at least 500.

    Args:
        bench: of all features.
    """
    everything = bench.run(bench.usual, Scoring())
    evidence = {one.feature: one for one in bench.full}
    findable = {
        row["feature"]
        for row in everything
        # Whether the judge names the concept costs less to know than the truth.
        if is_findable({**row, "discrimination": 1.0})
        and is_findable(
            {
                **row,
                "discrimination": true_discrimination(
                    row["explanation"], evidence[row["feature"]], bench.quality
                ),
            }
        )
    }
    others = sorted(evidence.keys() - findable)
    count = max(_FEWEST, _FEATURES_PER_FINDABLE * len(findable)) - len(findable)
    chosen = findable | set(random.Random(0).sample(others, min(count, len(others))))
    pool = [one for one in bench.usual if one.feature in chosen]
    prospects = prospects_of(pool, bench.pool.rows)
    active = []
    rows: list[Row] = []
    for seed in range(_SEEDS):
        order = random.Random(seed).sample(pool, len(pool))
        rows = []
        scoring = Scoring(chooser=Chooser(prospects, seed=seed))
        bench.run(order, scoring, on_result=rows.append)
        active.append(_until_found(rows, findable))
    rows.sort(key=lambda row: row["feature"])  # they came as they ended
    drawn = random.Random(0)
    at_random = [
        _until_found(drawn.sample(rows, len(rows)), findable) for _ in range(_RANDOM_ORDERS)
    ]
    best = sorted(rows, key=lambda row: (row["feature"] not in findable, tokens(row)))
    found = statistics.fmean(active)
    mean = statistics.fmean(at_random)
    return {
        "pool": len(pool),
        "findable": len(findable),
        "active_tokens_to_80_percent": found,
        "active_tokens_by_seed": active,
        "random_tokens_to_80_percent": mean,
        "oracle_tokens_to_80_percent": _until_found(best, findable),
        "active_over_random": found / mean,
    }


def _until_found(rows: Sequence[Row], findable: set[int]) -> int:
    """Tokens of rows in this order until 80 % of the findable features are among them."""
    wanted = _SHARE_TO_FIND * len(findable)
    found = accumulate(row["feature"] in findable for row in rows)
    spent = accumulate(map(tokens, rows))
    return next(used for used, count in zip(spent, found, strict=True) if count >= wanted)
