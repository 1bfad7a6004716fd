"""What a judge is found to be worth, against what it was made to be worth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import Fault, JudgeServer, default_answer
from scipy import stats

from safesail.errors import JudgeError
from safesail.explaining import PlantedFeature, Qualification, Scoring, qualify_judge
from safesail.explaining._items import draw_items, prompt_sizes
from safesail.explaining._scores import Interval
from safesail.explaining._shares import mean_interval, share_interval
from safesail.judging import Budget, Judge
from safesail.lab.judge import MODEL, QUALITIES, KnownTruthJudge, Quality, expected_grades
from safesail.lab.judge._prompts import Asked
from safesail.lab.judge._seeing import sights
from safesail.lab.planted_features import planted_features

CONCEPTS = ["violence", "weapons", "fraud", "self_harm", "drugs", "hate", "cybercrime", "privacy"]
# The judge's noise. In one of twenty seeds an interval misses; how often is tested further below.
SEED = 3


@pytest.fixture(scope="module")
def features() -> list[PlantedFeature]:
    return planted_features(16)


@pytest.fixture
def qualified(features: list[PlantedFeature], tmp_path: Path) -> Callable[..., Qualification]:
    def qualify(
        url: str, count: int = 16, scoring: Scoring | None = None, **options: object
    ) -> Qualification:
        judge = Judge(url, MODEL, cache=tmp_path / "judge.sqlite", max_retries=1, **options)  # type: ignore[arg-type]
        return qualify_judge(
            features[:count], judge=judge, concepts=CONCEPTS, language="en", scoring=scoring
        )

    return qualify


class Items:
    """The items of one feature's first prompt: texts, and which are active or hard silent."""

    def __init__(self, feature: PlantedFeature) -> None:
        sizes = prompt_sizes(len(feature.evidence.to_score()))[:1]
        (items,) = draw_items(feature.evidence, sizes, Scoring().seed)
        self.texts = [item.text for item in items]
        kinds = np.array([item.context.kind for item in items])
        self.active, self.hard = kinds == "active", kinds == "hard_silent"
        self.right = feature.right


def truths(items: list[Items], quality: Quality) -> dict[str, float]:
    """The shares of items that a judge grades wrongly, in expectation."""
    zero = np.concatenate([expected_grades(i.right, i.texts, quality)[:, 0] for i in items])
    active = np.concatenate([i.active for i in items])
    hard = np.concatenate([i.hard for i in items])
    return {
        "misses": zero[active].mean(),
        "false_alarms": 1 - zero[~active].mean(),
        "hard_false_alarms": 1 - zero[hard].mean(),
    }


@pytest.mark.parametrize("quality", ["good", "medium", "poor"])
def test_a_judge_is_found_to_be_what_it_is(
    quality: str, features: list[PlantedFeature], qualified: Callable[..., Qualification]
) -> None:
    with KnownTruthJudge(quality, seed=SEED) as judge:
        found = qualified(judge.url)
    for name, truth in truths([Items(one) for one in features], QUALITIES[quality]).items():
        interval = getattr(found, name)
        assert interval.low <= truth <= interval.high, name
        assert interval.high - interval.low < 0.2
    # What it is told of something else, it grades as if it knew nothing.
    assert found.discrimination_wrong.value == pytest.approx(0.5, abs=0.04)
    assert found.discrimination_right.low > found.discrimination_wrong.high
    assert found.qualifies == (quality != "poor")
    assert found.explained == 16
    assert found.experience is not None
    assert 1 <= found.experience.prompts <= 2
    # Against the judge's own books.
    log = judge.log
    assert found.answered == found.asked == found.calls == log.asked == log.answered
    assert (found.prompt_tokens, found.completion_tokens) == (
        log.prompt_tokens,
        log.completion_tokens,
    )
    graded = log.prompt_tokens + log.completion_tokens - 16 * found.tokens_per_feature
    assert 0 < graded < 0.6 * log.prompt_tokens  # by the known descriptions


def test_a_perfect_judge_errs_where_items_do_not_tell(
    features: list[PlantedFeature], qualified: Callable[..., Qualification]
) -> None:
    with KnownTruthJudge("perfect") as judge:
        found = qualified(judge.url, 8)
    truth = truths([Items(one) for one in features[:8]], QUALITIES["perfect"])
    assert {name: getattr(found, name).value for name in truth} == pytest.approx(truth)
    assert truth["misses"] < 0.01
    assert 0.02 < truth["false_alarms"] < 0.08
    assert found.discrimination_right.value > 0.98
    # All features agree, and that is no certainty.
    right = found.discrimination_right
    assert 0.005 < right.high - right.low < 0.1
    assert found.shared == pytest.approx(0.0, abs=0.005)


def test_errors_of_one_prompt_show(qualified: Callable[..., Qualification]) -> None:
    with KnownTruthJudge(Quality(misses=0.3, prompt_effect=3.0), seed=SEED) as judge:
        found = qualified(judge.url, 8)
    assert found.shared is not None
    assert found.shared > 0.05
    assert found.design_effect == pytest.approx(1 + 39 * found.shared)
    assert found.shared_features == 5
    # 28 items of a prompt are worth much less than 28 independent ones.
    independent = stats.binomtest(round(found.misses.value * 200), 200).proportion_ci(
        method="wilson"
    )
    assert found.misses.high - found.misses.low > 2 * (independent.high - independent.low)


def test_the_second_time_nothing_is_asked(qualified: Callable[..., Qualification]) -> None:
    with KnownTruthJudge("medium") as judge:
        first = qualified(judge.url, 6)
        asked = judge.log.asked
        again = qualified(judge.url, 6)
    assert judge.log.asked == asked == first.calls
    assert again == first.model_copy(update={"calls": 0})


def test_refusals_disqualify(qualified: Callable[..., Qualification]) -> None:
    with KnownTruthJudge("good", refusals=0.3, seed=SEED) as judge:
        found = qualified(judge.url)
    assert found.refused == judge.log.refused
    assert found.answered + found.refused == found.asked
    (fault,) = found.faults
    share = f"{100 * found.answered / found.asked:.0f} %"
    assert f"only {share} of {found.asked} questions" in fault
    assert f"{found.refused} refused" in fault
    assert "--fallback-judge" in fault


def test_a_fallback_that_answers_them_qualifies(
    qualified: Callable[..., Qualification], tmp_path: Path
) -> None:
    with KnownTruthJudge("good", refusals=0.3) as judge, KnownTruthJudge("good") as other:
        fallback = Judge(other.url, MODEL, cache=tmp_path / "judge.sqlite")
        found = qualified(judge.url, 8, fallback=fallback)
    assert found.fallback_answers == judge.log.refused == other.log.answered > 0
    assert found.answered == found.asked
    assert found.qualifies


def test_one_that_grades_all_alike_does_not_qualify(
    qualified: Callable[..., Qualification],
) -> None:
    with KnownTruthJudge(Quality(bias=3.0)) as judge:
        found = qualified(judge.url, 6)
    assert found.false_alarms.value == 1.0
    assert found.discrimination_right.value == pytest.approx(0.5)
    true, apart, own = found.faults
    assert "with true descriptions its discrimination is 0.50 [0.4" in true
    assert "at least 0.75" in true
    assert "must lie apart" in apart
    assert "with its own explanations" in own


def test_one_that_writes_the_same_of_every_feature_does_not_qualify(
    qualified: Callable[..., Qualification],
) -> None:
    with KnownTruthJudge("good") as judge, pytest.MonkeyPatch.context() as patch:
        answer = judge._mind.answer

        def useless(mind: object, asked: Asked, body: str) -> dict:
            said = answer(asked, body)
            useless = {"explanation": "text of some kind"}
            return said | useless if asked.task == "explain" else said

        patch.setattr(type(judge._mind), "answer", useless)
        found = qualified(judge.url, 6)
    assert found.explained == 6
    assert found.discrimination_own.value == pytest.approx(0.5, abs=0.05)
    (fault,) = found.faults
    assert fault.startswith("with its own explanations its discrimination is 0.")


def test_one_that_does_not_go_by_the_explanation_does_not_qualify(
    features: list[PlantedFeature], qualified: Callable[..., Qualification]
) -> None:
    with KnownTruthJudge("perfect") as judge, pytest.MonkeyPatch.context() as patch:
        # Whatever it is told, it looks for what is right.
        swapped = {one.wrong: one.right for one in features}
        grade = judge._mind.answer
        patch.setattr(
            type(judge._mind),
            "answer",
            lambda mind, asked, body: grade(
                asked.__class__(
                    **{
                        **vars(asked),
                        "explanation": swapped.get(asked.explanation, asked.explanation),
                    }
                ),
                body,
            ),
        )
        found = qualified(judge.url, 6)
    faults = "; ".join(found.faults)
    assert found.discrimination_wrong.low > 0.9
    assert "it does not go by the explanation" in faults
    assert "must lie apart" in faults


def test_garbled_answers_disqualify(qualified: Callable[..., Qualification]) -> None:
    with JudgeServer() as server:
        server.answer = lambda body: "Well, that is hard to say."
        found = qualified(server.url, 5)
    # Nothing is scored where nothing is explained.
    assert found.unparseable == found.asked == 5 + 5 + 5
    assert math.isnan(found.misses.value)
    assert math.isnan(found.discrimination_own.value)
    assert found.experience is None
    (fault,) = found.faults
    assert "15 unparseable" in fault
    assert "safesail judge log" in fault


def test_grades_without_explanations_are_told(qualified: Callable[..., Qualification]) -> None:
    def only_grades(body: dict) -> str:
        answer = default_answer(body)
        return answer if "grades" in json.loads(answer) else "no"

    with JudgeServer() as server:
        server.answer = only_grades
        found = qualified(server.url, 5)
    assert (found.unparseable, found.answered) == (5, 10)
    assert found.explained == 0
    assert found.misses.value >= 0
    assert "with its own explanations its discrimination is nan" in found.faults[-1]


def test_nobody_there(qualified: Callable[..., Qualification]) -> None:
    with pytest.raises(JudgeError):
        qualified("http://127.0.0.1:9/v1", 5)


def test_an_endpoint_that_turns_away_ends_it_with_its_own_error(
    qualified: Callable[..., Qualification],
) -> None:
    said: list[dict] = []

    def no(body: dict) -> str:
        said.append(body)
        if len(said) == 10:  # five explanations asked twice: next come the known descriptions
            server.faults.extend([Fault(401)] * 10)
        return "no"

    with JudgeServer() as server:
        server.answer = no
        with pytest.raises(JudgeError, match="401"):
            qualified(server.url, 5)
    assert len(said) == 10


def test_a_budget_leaves_it_unfinished(qualified: Callable[..., Qualification]) -> None:
    with KnownTruthJudge("good") as judge:
        found = qualified(judge.url, budget=Budget(20_000, "tokens"))
        assert not found.finished
        assert found.budget > 0
        assert found.asked == found.answered + found.budget
        (fault,) = found.faults
        assert f"spent when {found.budget} of {found.asked} questions were left" in fault
        # What was answered is kept: together both took what one would have taken.
        whole = qualified(judge.url)
    assert whole.finished
    assert set(judge.log.paid.values()) == {1}


def test_a_report_is_kept_as_json(qualified: Callable[..., Qualification]) -> None:
    with JudgeServer() as server:
        server.answer = lambda body: "no"  # figures that are not known, too
        found = qualified(server.url, 5)
    again = Qualification.model_validate_json(found.model_dump_json())
    assert again.model_dump_json() == found.model_dump_json()
    assert math.isnan(again.misses.value)


def test_a_wider_precision_takes_fewer_prompts(qualified: Callable[..., Qualification]) -> None:
    with KnownTruthJudge("medium") as judge:
        narrow = qualified(judge.url, 10, Scoring(precision=0.06))
        wide = qualified(judge.url, 10, Scoring(precision=0.2))
    assert wide.precise_share == 1.0 > narrow.precise_share
    assert wide.experience is not None
    assert narrow.experience is not None
    assert wide.experience.prompts < narrow.experience.prompts
    assert wide.tokens_per_feature < narrow.tokens_per_feature
    assert (wide.precision, narrow.precision) == (0.2, 0.06)


values = st.lists(st.floats(0, 1), min_size=2, max_size=20)


def figures(values: list[float], half: float = 0.0) -> list[Interval]:
    return [Interval(value, value - half, value + half) for value in values]


@given(values)
def test_means_are_students(found: list[float]) -> None:
    interval = mean_interval(figures([*found, math.nan]))
    assert interval.value == pytest.approx(np.mean(found))
    if np.ptp(found) > 1e-6:
        low, high = stats.t.interval(0.95, len(found) - 1, np.mean(found), stats.sem(found))
        assert interval.low == pytest.approx(max(low, 0), abs=1e-6)
        assert interval.high == pytest.approx(min(high, 1), abs=1e-6)


@given(values, st.floats(0, 0.5))
def test_means_are_known_no_better_than_their_figures(found: list[float], half: float) -> None:
    spread, interval = mean_interval(figures(found)), mean_interval(figures(found, half))
    independent = half / math.sqrt(len(found))
    for end in ("low", "high"):
        wider = max(
            abs(getattr(spread, end) - spread.value),
            min(independent, spread.value if end == "low" else 1 - spread.value),
        )
        assert abs(getattr(interval, end) - interval.value) == pytest.approx(wider, abs=1e-6)


def test_perfect_figures_are_no_certainty() -> None:
    interval = mean_interval([Interval(1.0, 0.9, 1.0)] * 16)
    assert (interval.value, interval.low, interval.high) == pytest.approx((1.0, 0.975, 1.0))


def test_of_one_value_no_interval_is_known() -> None:
    one = mean_interval(figures([0.7]))
    assert one.value == 0.7
    assert math.isnan(one.low)
    assert math.isnan(mean_interval([]).value)
    assert math.isnan(share_interval([], []).value)
    assert math.isnan(share_interval([0], [0]).value)


@given(st.integers(0, 60), st.integers(1, 60))
def test_shares_of_one_prompt_have_wilsons_interval(hits: int, count: int) -> None:
    hits = min(hits, count)
    interval = share_interval([hits, 0], [count, 0])  # a prompt without such items says nothing
    expected = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert interval.low == pytest.approx(expected.low, abs=1e-5)
    assert interval.high == pytest.approx(expected.high, abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 28), st.integers(1, 28)), min_size=2, max_size=20))
def test_shares_of_many_prompts(prompts: list[tuple[int, int]]) -> None:
    hits, counts = zip(*((min(h, n), n) for h, n in prompts), strict=True)
    interval = share_interval(hits, counts)
    assert interval.value == pytest.approx(sum(hits) / sum(counts))
    assert 0 <= interval.low <= interval.value + 1e-12
    assert interval.value - 1e-12 <= interval.high <= 1
    independent = stats.binomtest(sum(hits), sum(counts)).proportion_ci(method="wilson")
    assert interval.high - interval.low >= independent.high - independent.low - 1e-5


def test_prompts_that_err_as_one_count_as_one_item_each() -> None:
    """Ten prompts, each wholly right or wholly wrong: ten observations, whatever their size."""
    hits = [20] * 3 + [0] * 7
    interval = share_interval(hits, [20] * 10)
    # The design effect of equal clusters without variation inside: m k / (k - 1), by hand.
    worth = 200 / (20 * 10 / 9)
    quantile = stats.t.ppf(0.975, 9)
    spread = quantile * math.sqrt(0.3 * 0.7 / worth + quantile**2 / (4 * worth**2))
    centre = 0.3 + quantile**2 / (2 * worth)
    scale = 1 + quantile**2 / worth
    assert interval.low == pytest.approx((centre - spread) / scale, abs=1e-6)
    assert interval.high == pytest.approx((centre + spread) / scale, abs=1e-6)


@pytest.mark.proof
@pytest.mark.parametrize("quality", ["good", "medium", "poor"])
def test_intervals_hold_the_truth(quality: str, features: list[PlantedFeature]) -> None:
    """Over the judge's noise, prompts' shared effect included, with items and features fixed.

    False alarms of fixed items differ from item to item, which the interval takes for chance: it
    holds the truth more often than it says.
    """
    judge, repeats = QUALITIES[quality], 1_000
    items = [Items(one) for one in features]
    seen = [[sights(i.right, text, "items")[0] for text in i.texts] for i in items]
    truth = truths(items, judge)
    held = dict.fromkeys(truth, 0)
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        wrong: dict[str, list[tuple[int, int]]] = {name: [] for name in truth}
        for one, of_prompt in zip(items, seen, strict=True):
            misses, alarms = judge.rates(float(random.standard_normal()))
            sums = [list(accumulate(s.distribution(misses, alarms, judge.bias))) for s in of_prompt]
            graded = random.random(len(sums)) >= np.array([total[0] for total in sums])
            for name, mask, hits in (
                ("misses", one.active, ~graded),
                ("false_alarms", ~one.active, graded),
                ("hard_false_alarms", one.hard, graded),
            ):
                wrong[name].append((int(hits[mask].sum()), int(mask.sum())))
        for name, prompts in wrong.items():
            interval = share_interval(*zip(*prompts, strict=True))
            held[name] += interval.low <= truth[name] <= interval.high
    assert 0.93 <= held["misses"] / repeats <= 0.99
    for name in ("false_alarms", "hard_false_alarms"):
        assert held[name] / repeats >= 0.93, name
