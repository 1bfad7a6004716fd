"""Comparisons: rates chosen apart from what is reported, nothing trained twice, nothing lost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import pytest
import tiny_alignment as tiny
import torch
from judge_server import JudgeServer

from safesail.alignment import (
    Beginning,
    Comparison,
    ComparisonSettings,
    EvaluationPrompt,
    Example,
    Likelihood,
    ModelAnswers,
    Reply,
    TrainingOptions,
    compare,
    load_adapter,
    provenance_of,
)
from safesail.alignment import _comparison as module
from safesail.alignment._trainer import NotFiniteError
from safesail.errors import AlignmentError, InputError
from safesail.judging import Judge

REFUSAL, HELP = "I cannot help with that.", "Take a rope and do it."
PROMPTS = [
    *(EvaluationPrompt(f"h{n}", f"harm {n}", "harmful") for n in range(9)),
    *(EvaluationPrompt(f"l{n}", f"alike {n}", "look_alike") for n in range(9)),
]
EXAMPLES = [Example("harm", REFUSAL)]
METHODS = {
    "sae": Beginning(lambda seed: tiny.subspace(1, 2), {"saes": {"a": "1"}}),
    "lora": Beginning(),
}
CHOOSING = {f"{kind} {number}" for kind in ("harm", "alike") for number in (0, 3, 6)}


def settings(*rates: float, seeds: Sequence[int] = (0, 1), **options: Any) -> ComparisonSettings:
    return ComparisonSettings(4, ("q", "v"), TrainingOptions(**options), rates, tuple(seeds))


class World:
    """Trainings that are made up: what each answers is a rule of its method, rate and seed."""

    def __init__(self, rule: Callable[[str, float, int, str], str]) -> None:
        self.rule = rule
        self.trained: list[tuple[str, float, int]] = []
        self.diverges: set[tuple[str, float]] = set()
        self.stop_at: int | None = None
        self.asked: dict[tuple[str, float], set[str]] = defaultdict(set)

    def train(self, base: Any, tokenizer: Any, subspace: Any, run: Any, *rest: Any) -> Any:
        if run.adapter.exists():
            return Fake(self, run.method, run.rate, run.seed)
        if self.stop_at == len(self.trained):
            raise KeyboardInterrupt
        self.trained.append((run.method, run.rate, run.seed))
        if (run.method, run.rate) in self.diverges:
            raise AlignmentError("training stopped") from NotFiniteError("the loss is nan")
        run.adapter.mkdir(parents=True)
        run.kept.note(parameters=5)
        return Fake(self, run.method, run.rate, run.seed)


class Fake:
    """A trained system."""

    def __init__(self, world: World, method: str, rate: float, seed: int) -> None:
        self._said = lambda prompt: world.rule(method, rate, seed, prompt)
        self._world, self._run = world, (method, rate)

    def answer(self, prompts: Sequence[str]) -> list[Reply]:
        self._world.asked[self._run] |= set(prompts)
        return [Reply(self._said(prompt), 5) for prompt in prompts]

    def likelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        return [Likelihood(1.0, 2) for _ in texts]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """At rate .1 `sae` refuses the choosing harm, at .2 the reported; `lora` refuses all at .2."""

    def rule(method: str, rate: float, seed: int, prompt: str) -> str:
        if method == "base":
            return HELP
        if method == "lora":
            return REFUSAL if rate == 0.2 and prompt.startswith("harm") else HELP
        chosen = prompt in CHOOSING if rate == 0.1 else prompt not in CHOOSING
        return REFUSAL if prompt.startswith("harm") and chosen else HELP

    made = World(rule)
    monkeypatch.setattr(module, "train_run", made.train)
    monkeypatch.setattr(module, "ModelAnswers", lambda model, tokenizer, **settings: model)
    return made


def run(world: World, folder: Path, *rates: float, **more: Any) -> Comparison:
    methods: Mapping[str, Beginning] = more.pop("methods", METHODS)
    seeds = more.pop("seeds", (0, 1))
    return compare(
        lambda: Fake(world, "base", 0, 0),
        None,
        methods,
        EXAMPLES,
        more.pop("prompts", PROMPTS),
        folder,
        settings(*rates, seeds=seeds),
        model={"model": "m"},
        **more,
    )


def lexical(found: Comparison) -> dict[str, Any]:
    return {one.system: one.safety for one in found.evaluation.figures()}


def test_rates_are_chosen_on_prompts_that_are_not_reported(world: World, tmp_path: Path) -> None:
    found = run(world, tmp_path, 0.1, 0.2)
    assert found.learning_rates == {"sae": 0.1, "lora": 0.2}
    assert found.choosing is not None
    assert {one.prompt for one in found.choosing.prompts} == CHOOSING
    assert {one.prompt for one in found.evaluation.prompts} == {
        one.prompt for one in PROMPTS
    } - CHOOSING
    safety = lexical(found)
    # What chose the rate says nothing of the others.
    assert safety["sae"].safety_rate.value == 0
    assert safety["lora"].safety_rate.value == 1
    assert safety["base"].safety_rate.value == 0
    assert (safety["sae"].safety_rate.seeds, safety["sae"].safety_rate.prompts) == (2, 6)
    assert found.against == "lora"
    assert found.parameters == {"sae": 5, "lora": 5}
    # At rates that are not chosen, no other prompts are answered.
    every = {one.prompt for one in PROMPTS}
    assert world.asked["sae", 0.1] == world.asked["lora", 0.2] == every
    assert world.asked["sae", 0.2] == world.asked["lora", 0.1] == CHOOSING


def test_full_fine_tuning_gets_a_tenth_of_the_rates(world: World, tmp_path: Path) -> None:
    found = run(world, tmp_path, 0.1, 0.2, methods={"full": Beginning()})
    assert found.learning_rates["full"] in (0.1 * 0.1, 0.2 * 0.1)
    assert found.choosing is not None
    assert set(found.choosing.answers) == {"full at 0.01", "full at 0.02"}
    assert found.against == "full"


def test_an_interrupted_comparison_goes_on(world: World, tmp_path: Path) -> None:
    whole = run(world, tmp_path / "whole", 0.1, 0.2)
    every = world.trained
    for stop in range(len(every)):
        folder = tmp_path / str(stop)
        world.trained, world.stop_at = [], stop
        with pytest.raises(KeyboardInterrupt):
            run(world, folder, 0.1, 0.2)
        world.stop_at = None
        assert lexical(run(world, folder, 0.1, 0.2)) == lexical(whole)
        assert world.trained == every


def test_more_seeds_methods_or_prompts_train_what_is_new(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, 0.1, methods={"lora": Beginning()})
    world.trained = []
    run(world, tmp_path, 0.1, seeds=(0, 1, 2))
    assert world.trained == [("sae", 0.1, 0), ("sae", 0.1, 1), ("sae", 0.1, 2), ("lora", 0.1, 2)]
    world.trained = []
    other = {**METHODS, "sae": Beginning(METHODS["sae"].subspace, {"saes": {"a": "2"}})}
    run(world, tmp_path, 0.1, methods=other)
    assert world.trained == [("sae", 0.1, 0), ("sae", 0.1, 1)]
    world.trained, world.asked = [], defaultdict(set)
    run(world, tmp_path, 0.1, prompts=[*PROMPTS, EvaluationPrompt("n", "new", "benign")])
    assert world.trained == []
    assert all(asked == {"new"} for asked in world.asked.values())


def test_a_training_that_diverges_is_a_result(world: World, tmp_path: Path) -> None:
    world.diverges = {("lora", 0.2), ("sae", 0.1), ("sae", 0.2)}
    found = run(world, tmp_path, 0.1, 0.2)
    assert found.learning_rates == {"lora": 0.1}
    assert found.diverged == {"sae": (0.1, 0.2), "lora": (0.2,)}
    assert set(found.evaluation.answers) == {"base", "lora"}
    tried = list(world.trained)
    run(world, tmp_path, 0.1, 0.2)
    assert world.trained == tried
    world.diverges |= {("lora", 0.1)}
    with pytest.raises(AlignmentError, match="every method"):
        run(world, tmp_path / "all", 0.1, 0.2)


def test_other_errors_are_no_results(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any) -> Any:
        raise AlignmentError("out of memory")

    monkeypatch.setattr(module, "train_run", short)
    with pytest.raises(AlignmentError, match="out of memory"):
        run(world, tmp_path, 0.1)


def test_the_judge_reads_no_more_than_it_must(world: World, tmp_path: Path) -> None:
    """All rates on the choosing prompts, the chosen ones on the others."""
    with JudgeServer() as server:
        server.answer = lambda body: json.dumps({"refusal": "none", "grade": 5})
        world.rule = lambda method, rate, seed, prompt: f"{method} {rate} {seed} {prompt}"
        judge = Judge(server.url, "m", cache=tmp_path / "judge.sqlite")
        run(world, tmp_path, 0.1, 0.2, judge=judge)
        assert len(server.requests) == 2 * 2 * 2 * 6 + (1 + 2 * 2) * 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": {}}, "at least one method"),
        ({"seeds": ()}, "at least one method"),
        ({"prompts": PROMPTS[:1] + PROMPTS[-1:]}, "too few prompts"),
        ({"prompts": PROMPTS[:9]}, "none of kind look_alike"),
    ],
)
def test_bad_input_is_known_before_training(
    world: World, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(world, tmp_path, 0.1, 0.2, **change)
    with pytest.raises(InputError, match="named twice"):
        run(world, tmp_path, 0.1, 0.1)
    assert not world.trained


def test_real_trainings_are_equal_in_size_and_kept(tmp_path: Path) -> None:
    """On a bfloat16 base: of full fine-tuning small updates of all its weights would be lost."""
    folder = models.tiny_llama(tmp_path / "base")
    loaded: list[Any] = []

    def load() -> Any:
        loaded.append(tiny.load(folder).to(torch.bfloat16))
        return loaded[-1]

    before = {name: p.detach().float().clone() for name, p in load().named_parameters()}
    given = ComparisonSettings(
        4, ("q", "v"), TrainingOptions(steps=2, batch_size=2), (1e-3,), (0,), max_new_tokens=2
    )
    narrow = Beginning(lambda seed: tiny.subspace(1, 2, rank=1))

    def again(prompts: Sequence[EvaluationPrompt] = PROMPTS) -> Comparison:
        return compare(
            load,
            models.byte_tokenizer(),
            {**METHODS, "mean_difference": narrow, "full": Beginning()},
            EXAMPLES * 4,
            prompts,
            tmp_path / "out",
            given,
            model={"model": "m"},
            about={"prompts": ["digest"]},
        )

    found = again()
    assert len({found.parameters[name] for name in ("sae", "lora", "mean_difference")}) == 1
    assert found.directions == {"sae": (4, 4), "mean_difference": (1, 1)}
    assert found.parameters["full"] == sum(value.numel() for value in before.values())
    trained = loaded[-1]
    assert trained.dtype is torch.bfloat16
    assert any(
        not torch.equal(value.detach().float(), before[name])
        for name, value in trained.named_parameters()
    )
    assert not (tmp_path / "out" / ".work").exists()
    # What was trained can be used: it gives the answers that were kept.
    adapters = {path.name.split("-")[0]: path for path in (tmp_path / "out/adapters").iterdir()}
    assert set(adapters) == {"sae", "lora", "mean_difference"}
    for method, path in adapters.items():
        model = load_adapter(load(), path)
        assert (provenance_of(model).training or {})["prompts"] == ["digest"]
        answers = ModelAnswers(model, models.byte_tokenizer(), max_new_tokens=2)
        replies = found.evaluation.answers[method].replies[0]
        said = answers.answer([one.prompt.prompt for one in replies])
        assert [one.reply.text for one in replies] == [one.text for one in said]
    # Answers that were lost are given again by what was trained.
    for path in (tmp_path / "out/kept").iterdir():
        if '"method": "mean_difference"' in path.read_text():
            path.unlink()
    lost = again()
    assert lost.parameters == found.parameters
    assert lost.directions == found.directions
    # More prompts are answered by what was trained; only full fine-tuning trains again.
    loaded.clear()
    again([*PROMPTS, EvaluationPrompt("new", "a new one", "benign")])
    assert len(loaded) == 5


def test_nothing_is_scored_on_what_it_was_fitted_on(world: World, tmp_path: Path) -> None:
    prompts = [*PROMPTS, EvaluationPrompt("seen", " HARM ", "harmful")]
    with pytest.raises(InputError, match=r"1 of 19 prompts were trained on .* \(seen\)"):
        run(world, tmp_path, 0.1, prompts=prompts)
    assert not world.trained
