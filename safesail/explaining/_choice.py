"""Which features to explain first when the budget is not enough for all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._lexical import explain_lexically, simulate_lexically
from safesail.explaining._scores import window_scores
from safesail.tables import Context

Floats = NDArray[np.float64]

PRIOR_WEIGHTS = {"log_q_value": -4.0, "separation": 3.0}
"""What the lowest to the highest rank of a statistic changes in the prior's log-odds."""

# Log-odds of a feature in the middle of all ranks: one in five is findable.
_PRIOR_CENTRE = -1.4
# Beside columns of standard deviation 1: L2 presses on the prior's coefficient this much less
# (its square), so that few labels do not overturn it.
_PRIOR_SCALE = 3.0
# Of each class; with fewer a regression says nothing that the prior does not.
_FEWEST_OF_A_CLASS = 2
_INVERSE_REGULARISATION = 0.3
_EXPLORED_SHARE = 1 / 8

# What the cost of a feature is made of: see `_expected_tokens`.
_FIXED_TOKENS = 1_500
_SHOWN_WINDOWS, _SCORED_ITEMS = 30, 100
_ITEM_TOKENS, _TOKENS_BESIDE_ITEM = 12, 8
_CHARACTERS_PER_TOKEN, _CHARACTERS_PER_MARK = 4, 3


@dataclass(frozen=True)
class Prospect:
    """What is known of a feature before anything is paid for.

    Attributes:
        feature: index in the SAE.
        statistics: by name; all prospects of a study have the same names. NaN where undefined.
        cost: expected judge tokens to explain and score it.
    """

    feature: int
    statistics: Mapping[str, float]
    cost: float


class Chooser:
    """Orders features by how likely they are found per token, learning from those that were.

    A feature is *findable* when it is explained, the judge assigns one of the concepts it was
    chosen for (or one of their branch), and its discrimination exceeds 0.75. Until both outcomes
    were seen twice, the probability is a fixed prior: a logistic function of the ranks of
    `PRIOR_WEIGHTS`' statistics. Then, at the start of every round, a logistic regression with the
    prior's log-odds among its columns is fitted to all that was found. A feature's place is by
    probability over cost; one in eight places of a round goes to features drawn at random, so
    that a wrong prior is found out. The constants were chosen on lab SAEs: docs/choosing.md.

    A round depends on the prospects, the seed, what was given out before, and what was found:
    not on the order of either, so a run can be repeated.
    """

    def __init__(self, prospects: Sequence[Prospect], *, seed: int, round_size: int = 24) -> None:
        """Nothing chosen yet.

        Args:
            prospects: the features to choose from, each once.
            seed: of the random draws.
            round_size: features of a round.

        Raises:
            ValueError: a feature is there twice, a cost is not above 0, statistics differ in
                their names or lack one of `PRIOR_WEIGHTS`.
        """
        # A fixed order, so that nothing depends on the one that was given.
        self._prospects = sorted(prospects, key=lambda prospect: prospect.feature)
        _check(self._prospects)
        self._features = [prospect.feature for prospect in self._prospects]
        self._costs = np.array([prospect.cost for prospect in self._prospects])
        self._round_size = round_size
        self._given: set[int] = set()
        # One number a feature, not one a round: what is drawn does not depend on the rounds' count.
        self._lots = np.random.default_rng(seed).permutation(len(self._prospects))
        if self._prospects:
            self._prior = _prior_log_odds(self._prospects)
            self._columns = _columns(self._prospects, self._prior)

    def next_round(self, found: Mapping[int, bool]) -> list[int]:
        """Features of the next round, best first; empty at the end.

        Args:
            found: by feature explained so far, whether it turned out findable. Features that no
                round gave out (of an earlier run, of a pilot) count too, and are not given out;
                one that failed may be left out, and is not given out again.
        """
        left = [
            place
            for place, feature in enumerate(self._features)
            if feature not in self._given and feature not in found
        ]
        values = self._probabilities(found) / self._costs if left else np.empty(0)
        ranked = sorted(left, key=lambda place: (-values[place], place))
        size = min(self._round_size, len(ranked))
        drawn_at_random = int(size * _EXPLORED_SHARE)
        best, others = ranked[: size - drawn_at_random], ranked[size - drawn_at_random :]
        explored = sorted(others, key=lambda place: self._lots[place])[:drawn_at_random]
        chosen = [self._features[place] for place in [*best, *explored]]
        self._given.update(chosen)
        return chosen

    def _probabilities(self, found: Mapping[int, bool]) -> Floats:
        """That each feature is findable, shape (prospects,)."""
        rows = [place for place, feature in enumerate(self._features) if feature in found]
        labels = np.array([found[self._features[place]] for place in rows], dtype=bool)
        if min(labels.sum(), (~labels).sum()) < _FEWEST_OF_A_CLASS:
            prior: Floats = expit(self._prior)
            return prior
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=1_000)
        model.fit(self._columns[rows], labels)
        probabilities: Floats = model.predict_proba(self._columns)[:, 1]
        return probabilities


def prospects_of(
    evidence: Sequence[FeatureEvidence], rows: Sequence[Mapping[str, Any]]
) -> list[Prospect]:
    """What is known of features before anything is paid for; of windows, the explain split alone.

    From the features table, of the concept that a feature separates best: `f`, `separation`,
    `specificity` and `log_q_value`; `called` for any concept; `log_density`. From the windows
    drawn at random: `active_share`, active tokens of an active window; `token_entropy`, of the
    mass of activation over token ids, in nats; `top_token_share`, the largest share of that mass.
    From the lexical baseline, fitted on one half of the documents and scored on the other, both
    ways, mean: `lexical_discrimination` and `lexical_correlation`.

    Args:
        evidence: of the features, in the order of the result.
        rows: of the features table; those of other features are left out.

    Raises:
        ValueError: a feature has no row.
    """
    by_feature: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_feature[row["feature"]].append(row)
    missing = [one.feature for one in evidence if one.feature not in by_feature]
    if missing:
        raise ValueError(f"features without a row: {missing[:5]}")
    return [
        Prospect(
            one.feature,
            {
                **_ranking_statistics(by_feature[one.feature]),
                **_firing_statistics(one),
                **_lexical_statistics(one),
            },
            _expected_tokens(one),
        )
        for one in evidence
    ]


def _expected_tokens(evidence: FeatureEvidence) -> float:
    """Roughly what explaining and scoring a feature takes, from its windows to explain with.

    Instructions and answers are the same for all features; what differs is the windows' length
    and the marks at active tokens. Features are compared by it; it is no forecast of the bill.
    """
    windows = evidence.to_explain()
    if not windows:
        return float(_FIXED_TOKENS)
    characters = np.mean([sum(map(len, window.tokens)) for window in windows])
    token = characters / np.mean([len(window.tokens) for window in windows])
    marks = _CHARACTERS_PER_MARK * np.mean(
        [sum(value > 0 for value in window.activations) for window in windows]
    )
    shown = _SHOWN_WINDOWS * (characters + marks)
    items = _SCORED_ITEMS * (_ITEM_TOKENS * token + _CHARACTERS_PER_TOKEN * _TOKENS_BESIDE_ITEM)
    return float(_FIXED_TOKENS + (shown + items) / _CHARACTERS_PER_TOKEN)


def _check(prospects: Sequence[Prospect]) -> None:
    features = [prospect.feature for prospect in prospects]
    if len(set(features)) < len(features):
        raise ValueError("a feature is among the prospects twice")
    names = {frozenset(prospect.statistics) for prospect in prospects}
    if len(names) > 1:
        raise ValueError("prospects differ in the names of their statistics")
    lacking = [name for name in PRIOR_WEIGHTS if names and name not in min(names)]
    if lacking:
        raise ValueError(f"prospects lack {', '.join(lacking)}")
    if not all(prospect.cost > 0 for prospect in prospects):
        raise ValueError("a prospect's cost must be above 0")


def _prior_log_odds(prospects: Sequence[Prospect]) -> Floats:
    """From ranks alone, shape (prospects,): they need no scale, and no fitting."""
    log_odds = np.full(len(prospects), _PRIOR_CENTRE)
    for name, weight in PRIOR_WEIGHTS.items():
        values = _imputed(np.array([prospect.statistics[name] for prospect in prospects]))
        log_odds += weight * ((rankdata(values) - 0.5) / len(values) - 0.5)
    return log_odds


def _columns(prospects: Sequence[Prospect], prior: Floats) -> Floats:
    """What the regression sees, shape (prospects, statistics + 1), the prior last."""
    names = sorted(prospects[0].statistics)
    values = np.array([[prospect.statistics[name] for name in names] for prospect in prospects])
    columns = np.column_stack([*(_imputed(column) for column in values.T), prior])
    deviations = columns.std(axis=0)
    columns = (columns - columns.mean(axis=0)) / np.where(deviations > 0, deviations, 1.0)
    columns[:, -1] *= _PRIOR_SCALE
    return columns


def _imputed(values: Floats) -> Floats:
    """Values with the median in place of what is undefined; 0 where all is."""
    defined = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, np.median(defined) if len(defined) else 0.0)


def _ranking_statistics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    best = max(rows, key=lambda row: (_number(row["separation"], -math.inf), row["concept"]))
    return {
        "f": _number(best["f"]),
        "separation": _number(best["separation"]),
        "specificity": _number(best["specificity"]),
        "log_q_value": math.log(max(_number(best["q_value"]), 1e-12)),
        "called": _number(max(row["called"] for row in rows)),
        "log_density": math.log(max(_number(best["density"]), 1e-9)),
    }


def _number(value: float | None, absent: float = math.nan) -> float:
    return absent if value is None or math.isnan(value) else float(value)


def _firing_statistics(evidence: FeatureEvidence) -> dict[str, float]:
    mass: dict[int, float] = defaultdict(float)
    shares, weights = [], []
    for context in _drawn(evidence):
        if context.kind == "active":
            shares.append(np.mean(np.asarray(context.activations) > 0))
            weights.append(context.weight)
            for token, value in zip(context.token_ids, context.activations, strict=True):
                mass[token] += context.weight * max(value, 0.0)
    if not shares:
        return dict.fromkeys(("active_share", "token_entropy", "top_token_share"), math.nan)
    share = np.array([value for value in mass.values() if value > 0])
    share = share / share.sum()
    return {
        "active_share": float(np.average(shares, weights=weights)),
        "token_entropy": float(-(share * np.log(share)).sum()),
        "top_token_share": float(share.max()),
    }


def _lexical_statistics(evidence: FeatureEvidence) -> dict[str, float]:
    drawn = _drawn(evidence)
    documents = sorted({context.document for context in drawn})
    # Whole documents: windows of one go together.
    order = np.random.default_rng(0).permutation(len(documents))
    first = {documents[place] for place in order[::2]}
    halves = [[c for c in drawn if (c.document in first) is side] for side in (True, False)]
    discriminations, correlations = [], []
    for fitted, scored in (halves, halves[::-1]):
        if fitted and scored:
            line = explain_lexically(fitted, evidence.q999)
            scores = window_scores(scored, simulate_lexically(line, scored))
            discriminations.append(scores.discrimination.value)
            # Undefined where it predicts the same everywhere: then it knows nothing.
            correlations.append(_number(scores.correlation.value, absent=0.0))
    return {
        "lexical_discrimination": _mean(discriminations),
        "lexical_correlation": _mean(correlations),
    }


def _mean(values: Sequence[float]) -> float:
    """Of what is defined; NaN where nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _drawn(evidence: FeatureEvidence) -> list[Context]:
    """Windows to explain with that were drawn from their strata."""
    return [c for c in evidence.contexts if c.split == "explain" and c.sample == "random"]
