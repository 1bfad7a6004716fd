"""What a judge was found to be worth, and what speaks against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from safesail.explaining._estimate import Experience
from safesail.explaining._evidence import FeatureEvidence
from safesail.explaining._explain import FINDABLE_DISCRIMINATION
from safesail.explaining._graded import CHANCE
from safesail.explaining._scores import Interval

# What a judge must reach to qualify, besides FINDABLE_DISCRIMINATION; our choice.
_LEAST_ANSWERED = 0.90
_ABOVE_CHANCE = 0.05


@dataclass(frozen=True)
class PlantedFeature:
    """A feature whose truth is known.

    Attributes:
        name: what it is about.
        evidence: its windows, with labels that are right.
        right: a true description of it.
        wrong: a description of something else, which none of the windows hold.
    """

    name: str
    evidence: FeatureEvidence
    right: str
    wrong: str


class Qualification(BaseModel):
    """What a judge was found to be worth.

    Intervals are 95 % intervals: `mean_interval` of figures of features, `share_interval` of items
    that are graded rightly or wrongly. Where nothing was answered a figure is NaN.

    Attributes:
        url: base URL of the judge.
        model: its name there.
        language: of its explanations, as a tag.
        features: names of the features that it was asked about.
        precision: half-width of discrimination's interval at which scoring stopped.
        explained: features that it explained and whose discrimination is known.
        discrimination_own: mean AUROC of its own explanations, in [0, 1].
        precise_share: share of the explained features whose interval became as precise.
        tokens_per_feature: mean tokens, prompts and answers together, that explaining and scoring
            a feature took. The first features take three scoring prompts whatever is found.
        experience: what a forecast of `explain_features` needs to know; None if fewer than five
            features were explained.
        discrimination_right: mean AUROC of true descriptions.
        discrimination_wrong: mean AUROC of descriptions of something else; chance is 0.5.
        misses: share of items in which the feature is active that got the grade 0 by the true
            description.
        false_alarms: share of items in which it is silent that got a grade above 0 by it.
        hard_false_alarms: the same where one of its words occurs.
        shared: intra-prompt correlation of what items contribute to discrimination, pooled over
            the first features: an upper guess, as a standard error is added; None if it could not
            be measured.
        shared_features: features that it was measured on.
        design_effect: factor of discrimination's variance that comes of it in prompts of 40 items.
        asked: questions.
        answered: of these, with an answer that fits the question.
        refused: likewise, by the fallback too where there is one.
        unparseable: likewise, twice.
        failed: likewise, without a usable response.
        budget: not asked, because the budget was spent.
        fallback_answers: answers of the fallback.
        calls: requests sent now; what was in the cache counts nothing.
        prompt_tokens: of all answers, in the cache or not.
        completion_tokens: likewise, hidden ones included.
        reasoning_tokens: of these, the hidden ones.
        seconds: task -> median seconds from the first request to the answer, of all answers of
            the judge that the cache holds.
        cost_usd: US dollars of all answers; None without a price.
        faults: what speaks against the judge, in words; empty if it qualifies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    url: str
    model: str
    language: str
    features: list[str]
    precision: float
    explained: int
    discrimination_own: Interval
    precise_share: float
    tokens_per_feature: float
    experience: Experience | None
    discrimination_right: Interval
    discrimination_wrong: Interval
    misses: Interval
    false_alarms: Interval
    hard_false_alarms: Interval
    shared: float | None
    shared_features: int
    design_effect: float | None
    asked: int
    answered: int
    refused: int
    unparseable: int
    failed: int
    budget: int
    fallback_answers: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    seconds: dict[str, float] = {}
    cost_usd: float | None
    faults: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether all was asked: no budget ended it."""
        return not self.budget

    @property
    def qualifies(self) -> bool:
        """Whether nothing speaks against the judge."""
        return not self.faults


def faults_of(found: Qualification) -> list[str]:
    """What speaks against a judge, a line each, by thresholds of our choice."""
    if not found.finished:
        return [
            f"the budget was spent when {found.budget} of {found.asked} questions were left: this "
            "says nothing of the judge; run again with a larger --budget (what was answered is "
            "kept)"
        ]
    faults = []
    share = found.answered / found.asked
    if share < _LEAST_ANSWERED:
        commonest = max(("refused", "unparseable", "failed"), key=lambda s: getattr(found, s))
        faults.append(
            f"only {_percent(share)} of {found.asked} questions were answered, "
            f"{_percent(_LEAST_ANSWERED)} are wanted: {found.refused} refused, "
            f"{found.unparseable} unparseable, {found.failed} failed; {_REMEDIES[commonest]}"
        )
    right, wrong = found.discrimination_right, found.discrimination_wrong
    if math.isnan(right.value) or math.isnan(wrong.value):  # nothing was answered of one of them
        return faults
    if not right.low >= FINDABLE_DISCRIMINATION:
        faults.append(
            f"with true descriptions its discrimination is {_figure(right)}: the lower end must be "
            f"at least {FINDABLE_DISCRIMINATION:.2f}, below which no feature counts as findable; "
            "take a better model, or more --features where the interval is wide"
        )
    if wrong.low > CHANCE + _ABOVE_CHANCE:
        faults.append(
            f"with wrong descriptions its discrimination is {_figure(wrong)}, above chance "
            f"({CHANCE:.2f}): it does not go by the explanation; take another model"
        )
    if not right.low > wrong.high:
        faults.append(
            f"with true descriptions its discrimination is {_figure(right)}, with wrong ones "
            f"{_figure(wrong)}: the intervals must lie apart; take another model, or more "
            "--features"
        )
    own = found.discrimination_own
    if not own.low > wrong.high:  # nor where too few were scored for an interval
        faults.append(
            f"with its own explanations its discrimination is {_figure(own)}, with wrong "
            f"descriptions {_figure(wrong)}: the intervals must lie apart, as explanations that "
            "say nothing do no better; take another model, or more --features"
        )
    return faults


_REMEDIES = {
    "refused": "name a --fallback-judge that answers them",
    "unparseable": "see `safesail judge log`, and take a model that writes JSON",
    "failed": "see that the endpoint is up, and run again",
}


def _figure(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
