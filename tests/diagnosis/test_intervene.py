"""What changing a feature does, by hand on tiny models and against what is true in the lab."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab_interventions import Lab, open_lab
from scipy import stats

from safesail.diagnosis import (
    FeatureEdit,
    FeatureIntervention,
    PromptOutcome,
    alive_features,
    draw_controls,
    target_tokens,
)
from safesail.diagnosis._intervention import effect_of
from safesail.errors import CandidateError, InputError
from safesail.language_model import whole_text
from safesail.pipeline import Diagnoser, intervene, load_results
from safesail.study import Study

PROMPT = "the dog sat on the cat, he read"


def chosen(study: Path, sae: str = "first") -> dict[str, Any]:
    """The first chosen feature that fires."""
    rows = load_results(Study.open(study), "features", sae).to_pylist()
    found: dict[str, Any] = next(row for row in rows if row["q999"] > 0)
    return found


def test_the_next_token_after_a_clamp_is_what_it_is_by_hand(two_layers: Path) -> None:
    """Transformers' model with a hook, SAELens' SAE, and SciPy's entropy."""
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM

    row = chosen(two_layers)
    study = Study.open(two_layers)
    found = intervene(
        study, [PROMPT], row["feature"], sae="first", value=1.5, targets=[" cat"], generate=6,
        controls=4,
    )  # fmt: skip
    (outcome,) = found.outcomes
    model = AutoModelForCausalLM.from_pretrained(two_layers / "model").eval()
    theirs = SAE.load_from_disk(str(two_layers / "saes" / "first"), device="cpu")
    diagnoser = Diagnoser(study, sae="first")
    text = whole_text(diagnoser._workspace.model, PROMPT, document="")
    assert text is not None
    ids = torch.tensor([[0, *text.token_ids]])
    direction = theirs.W_dec[row["feature"]]
    # What lies beyond is padding of the unembedding, which nothing can be read from.
    known = len(diagnoser._workspace.model.tokenizer)

    def after(own: bool, control: int = 0) -> torch.Tensor:
        def hook(_: Any, __: Any, x: torch.Tensor) -> torch.Tensor:
            a = theirs.encode(x)[..., row["feature"]]
            change = 1.5 * row["q999"] - a
            change[:, 0] = 0  # BOS is no content
            if own:
                return x + change[..., None] * direction
            other = theirs.W_dec[control] / theirs.W_dec[control].norm()
            return x + (change * direction.norm())[..., None] * other

        handle = model.model.layers[1].register_forward_hook(hook)
        with torch.no_grad():
            logits = model(ids).logits[0, -1, :known]
        handle.remove()
        return logits.double().softmax(-1)

    with torch.no_grad():
        before = model(ids).logits[0, -1, :known].double().softmax(-1)
    own = after(own=True)
    assert outcome.kl == pytest.approx(stats.entropy(before, own), rel=1e-3)
    token = diagnoser._workspace.model.tokenizer(" cat", add_special_tokens=False)["input_ids"][0]
    assert outcome.target_before == pytest.approx(float(before[token]), rel=1e-3)
    assert outcome.target_after == pytest.approx(float(own[token]), rel=1e-3)
    for number, control in enumerate(found.controls):
        expected = after(own=False, control=control)
        assert outcome.target_controls[number] == pytest.approx(float(expected[token]), rel=1e-3)
        assert outcome.kl_controls[number] == pytest.approx(
            stats.entropy(before, expected), rel=2e-3
        )
    up = outcome.up[0]
    assert up.token_id == int((own - before).argmax())
    assert up.after - up.before == pytest.approx(float((own - before).max()), rel=1e-3)
    assert outcome.down[0].token_id == int((own - before).argmin())
    assert outcome.tokens == len(text.token_ids)
    assert found.answers is not None
    assert found.answers.prompt == PROMPT


def test_answers_change_and_are_repeatable(two_layers: Path) -> None:
    """And are the same when asked again; another seed draws other controls."""
    row, study = chosen(two_layers), Study.open(two_layers)
    common: dict[str, Any] = {"sae": "first", "value": 3.0, "controls": 2, "targets": [" a"]}
    found = intervene(study, [PROMPT], row["feature"], generate=5, **common)
    assert found.answers is not None
    assert found.answers.after != found.answers.before
    again = intervene(study, [PROMPT], row["feature"], generate=5, **common)
    assert again == found
    other = intervene(study, [PROMPT], row["feature"], generate=0, seed=1, **common)
    assert other.answers is None
    assert other.controls != found.controls


def test_ablating_a_feature_that_never_fires_changes_nothing(two_layers: Path) -> None:
    study = Study.open(two_layers)
    diagnoser = Diagnoser(study, sae="first")
    found = diagnoser.diagnose(PROMPT)
    fired = {peak.feature.feature for peak in found.peaks()}
    rows = load_results(study, "features", "first").to_pylist()
    silent = next(r["feature"] for r in rows if r["q999"] > 0 and r["feature"] not in fired)
    common: dict[str, Any] = {"sae": "first", "targets": [" a"], "controls": 2, "generate": 4}
    for mode in ("ablate", "scale"):
        result = intervene(study, [PROMPT], silent, mode=mode, value=5.0, **common)
        (outcome,) = result.outcomes
        if outcome.strength == 0:
            assert outcome.kl == pytest.approx(0, abs=1e-9)
            assert outcome.shift == 0
            assert result.answers is not None
            assert result.answers.after == result.answers.before


def outcome(before: float, after: float, controls: list[float]) -> PromptOutcome:
    return PromptOutcome(
        prompt="", tokens=1, strength=0, shift=0, kl=0, kl_controls=tuple(controls), up=(),
        down=(), target_before=before, target_after=after, target_controls=tuple(controls),
    )  # fmt: skip


def test_the_effect_against_scipy() -> None:
    random = np.random.default_rng(0)
    outcomes = [
        outcome(0.1, float(0.3 * random.uniform(0.8, 1.2)), list(random.uniform(0.05, 0.2, 5)))
        for _ in range(12)
    ]
    effect = effect_of(outcomes)
    assert effect is not None
    own = np.log([one.target_after / 0.1 for one in outcomes])
    controls = np.log(np.array([one.target_controls for one in outcomes]) / 0.1).mean(0)
    ends = stats.t.interval(0.95, len(own) - 1, own.mean(), own.std(ddof=1) / math.sqrt(len(own)))
    assert (effect.log_change_low, effect.log_change_high) == pytest.approx(ends)
    assert effect.difference == pytest.approx(effect.log_change - effect.log_change_controls)
    # The two-sample t-test of one feature against the others, whose variance is theirs alone.
    test = stats.ttest_ind([own.mean()], controls)
    assert (effect.low is not None and effect.low > 0) == (test.pvalue < 0.05)
    low, high = test.confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((low, high))
    assert effect.rank_probability == pytest.approx(1 / 6)


def test_one_prompt_has_a_rank_and_no_interval_over_prompts() -> None:
    effect = effect_of([outcome(0.1, 0.2, [0.1, 0.04, 0.15, 0.3])])
    assert effect is not None
    assert (effect.log_change_low, effect.log_change_high) == (None, None)
    assert effect.low is not None
    assert effect.low < effect.difference
    alone = effect_of([outcome(0.1, 0.2, [0.1])])
    assert alone is not None
    assert (alone.low, alone.high) == (None, None)
    # Two of four move it as far, one of them down.
    assert effect.rank_probability == pytest.approx(3 / 5)
    assert effect_of([outcome(0.1, 0.2, [])]) is None


def test_its_own_top_tokens_are_compared_with_nothing(two_layers: Path) -> None:
    row, study = chosen(two_layers), Study.open(two_layers)
    found = intervene(study, [PROMPT], row["feature"], sae="first", controls=2, generate=0)
    assert found.effect is None
    assert len(found.outcomes[0].target_controls) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_value_is_a_number_of_a_sensible_size(two_layers: Path, value: float) -> None:
    with pytest.raises(InputError, match="give a number between"):
        intervene(Study.open(two_layers), [PROMPT], 0, sae="first", value=value)


def test_bad_input(two_layers: Path, copy: Callable[[Path], Path]) -> None:
    study, feature = Study.open(two_layers), chosen(two_layers)["feature"]
    common: dict[str, Any] = {"sae": "first", "generate": 0, "controls": 2}
    with pytest.raises(InputError, match="a prompt is empty"):
        intervene(study, ["  "], feature, targets=[" a"], **common)
    with pytest.raises(InputError, match="no prompt"):
        intervene(study, [], feature, **common)
    with pytest.raises(InputError, match="the model's context 64: shorten"):
        intervene(study, ["the dog " * 80], feature, targets=[" a"], **common)
    with pytest.raises(InputError, match="was not chosen in first"):
        intervene(study, [PROMPT], 10_000, **common)
    with pytest.raises(InputError, match="features fire on the corpus' beginning"):
        intervene(study, [PROMPT], feature, targets=[" a"], **{**common, "controls": 500})


def test_controls_are_drawn_from_what_fires() -> None:
    alive = list(range(0, 40, 2))
    drawn = draw_controls(alive, 4, 19, 0)
    assert sorted(drawn) == [feature for feature in alive if feature != 4]
    assert draw_controls(alive, 4, 5, 7) == draw_controls(alive, 4, 5, 7)
    with pytest.raises(InputError, match="only 19 other features"):
        draw_controls(alive, 4, 20, 0)


@pytest.fixture(scope="module")
def lab(lab_study: Path) -> Iterator[Lab]:
    # Thousands of passes of a tiny model: threads would wait for each other longer than they work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield open_lab(lab_study)
    torch.set_num_threads(threads)


def test_alive_features_are_those_that_fire(lab: Lab) -> None:
    texts = lab.texts(400)
    alive = alive_features(
        lab.model, lab.sae, texts, sink_threshold=lab.sink_threshold, tokens=10_000
    )
    (batch,) = lab.model.batches(texts, prepend_bos=True, tokens_per_batch=100_000)
    x = lab.model.activations(batch, [lab.sae.hook_point])[lab.sae.hook_point]
    fires = (lab.sae.encode(x[batch.content_mask]) > 0).any(0)
    assert alive == fires.nonzero().flatten().tolist()
    assert 0 < len(alive) < lab.sae.width
    with pytest.raises(CandidateError, match="has no feature 5000"):
        FeatureIntervention(lab.model, lab.sae, FeatureEdit(5000, "clamp", 1, 1), sink_threshold=9)


def moved(lab: Lab, concept: str) -> Any:
    """The effect of the feature that moves a concept's words most, on prompts that chose nothing.

    A feature that tells a concept best may fire on its objects, after which no verb comes. Which
    one speaks of the concept is found on other prompts.
    """
    targets = target_tokens([f" {word}" for word in lab.triggers(concept)], lab.model)
    prompts = lab.neutral_prompts(36)

    def run(feature: int, prompts: list[str], controls: tuple[int, ...]) -> Any:
        edit = FeatureEdit(feature, "clamp", 1.0, lab.q999[feature])
        intervention = FeatureIntervention(
            lab.model, lab.sae, edit, sink_threshold=lab.sink_threshold, controls=controls
        )
        return intervention.run(prompts, targets, generate=0)

    def mean_change(feature: int) -> float:
        outcomes = run(feature, prompts[:12], ()).outcomes
        return float(np.mean([one.log_change for one in outcomes]))

    best = max(lab.called[concept], key=mean_change)
    return run(best, prompts[12:], draw_controls(lab.alive, best, 20, seed=0)).effect


def test_a_concepts_feature_moves_its_words_more_than_controls(lab: Lab) -> None:
    effect = moved(lab, "fraud")
    assert (effect.prompts, effect.controls) == (24, 20)
    assert effect.low > 0.3
    assert effect.rank_probability < 0.1


@pytest.mark.proof
def test_one_more_random_feature_seldom_moves_more_than_the_controls(lab: Lab) -> None:
    """Or the interval would call anything an effect: of 60 draws, 3 are expected."""
    targets = target_tokens([f" {word}" for word in lab.triggers("fraud")], lab.model)
    prompts = lab.neutral_prompts(6)
    drawn = np.random.default_rng(0).choice(lab.alive, 60, replace=False).tolist()
    q999 = float(np.median(list(lab.q999.values())))
    beyond = 0
    for number, feature in enumerate(drawn):
        intervention = FeatureIntervention(
            lab.model,
            lab.sae,
            FeatureEdit(feature, "clamp", 1.0, q999),
            sink_threshold=lab.sink_threshold,
            controls=draw_controls(lab.alive, feature, 20, seed=number),
        )
        effect = intervention.run(prompts, targets, generate=0).effect
        assert effect is not None
        assert effect.low is not None
        assert effect.high is not None
        beyond += not effect.low <= 0 <= effect.high
    # At most 9: a binomial of 0.05 exceeds it once in 1,300 times.
    assert beyond <= 9


@pytest.mark.proof
def test_features_of_most_concepts_move_their_words_more_than_controls(lab: Lab) -> None:
    effects = {concept: moved(lab, concept) for concept in lab.called}
    assert len(effects) == 8
    assert sum(effect.low > 0 for effect in effects.values()) >= 6, effects
