"""Train the same adapter from several beginnings, and compare what comes of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._evaluation import Evaluation, System, evaluate
from safesail.alignment._figures import Answers, figures
from safesail.alignment._generation import ModelAnswers
from safesail.errors import InputError

if TYPE_CHECKING:
    from safesail.alignment._data import Example
    from safesail.alignment._prompts import EvaluationPrompt
    from safesail.alignment._subspace import Subspace
    from safesail.alignment._training import TrainingOptions
    from safesail.judging import Judge

BASE, LORA, FULL = "base", "lora", "full"
FULL_RATE = 0.1
"""Share of an adapter's learning rate that full fine-tuning gets: our choice, as it moves all."""
_CHOOSING_PART = 3


@dataclass(frozen=True)
class ComparisonSettings:
    """How systems are trained: alike in parameters, steps and initial norm.

    Attributes:
        rank: of all adapters.
        modules: roles.
        options: of the training; learning rate and seed are those below.
        learning_rates: tried for each method; the best on prompts set aside for that counts.
        seeds: of the training, and of bases that are drawn.
        batch_size: prompts answered at once.
        max_new_tokens: most tokens of an answer.
    """

    rank: int
    modules: tuple[str, ...]
    options: TrainingOptions
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    batch_size: int = 16
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Comparison:
    """What came of each method.

    Attributes:
        evaluation: of the base and of each method at its learning rate, on prompts that chose
            nothing.
        learning_rates: that each method was trained with.
        parameters: trained, by method.
        choosing_prompts: how many prompts the learning rates were chosen on; 0 with one rate.
    """

    evaluation: Evaluation
    learning_rates: Mapping[str, float]
    parameters: Mapping[str, int]
    choosing_prompts: int


def compare(
    load_base: Callable[[], Any],
    tokenizer: Any,
    methods: Mapping[str, Callable[[int], Subspace | None]],
    examples: Sequence[Example],
    prompts: Sequence[EvaluationPrompt],
    work: Path,
    settings: ComparisonSettings,
    *,
    judge: Judge | None = None,
    texts: Sequence[str] = (),
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Comparison:
    """Train every method with every learning rate and seed, and have all answer the same prompts.

    Every third prompt of a kind and group chooses the learning rate of each method, by the
    balanced score; the figures are of the others. Without a judge, refusal rules score.

    Args:
        load_base: gives the base model anew, for training changes what it is given.
        tokenizer: the model's.
        methods: by name, the subspace for a seed; None for plain LoRA. The name `full` stands for
            full fine-tuning, whose subspace is not asked for.
        examples: prompts and answers, benign ones among them.
        prompts: to be answered.
        work: folder of checkpoints; emptied of each training once it is done.
        settings: how all are trained.
        judge: who grades.
        texts: held-out texts, for perplexity.
        progress: wraps an iterable with a label.

    Raises:
        InputError: no method, seed or learning rate; or too few prompts to set some aside.
        SafesailError: see `evaluate`, `make_adapter` and `fit`.
    """
    if not methods or not settings.seeds or not settings.learning_rates:
        raise InputError("name at least one method, one seed and one learning rate")
    if len(set(settings.learning_rates)) < len(settings.learning_rates):
        raise InputError("a learning rate is named twice")
    several = len(settings.learning_rates) > 1
    choosing, reported = _split(prompts) if several else ([], list(range(len(prompts))))
    parameters: dict[str, int] = {}
    runs = [
        (method, rate, seed)
        for method in methods
        for rate in settings.learning_rates
        for seed in settings.seeds
    ]

    def answers_of(model: Any) -> ModelAnswers:
        return ModelAnswers(
            model,
            tokenizer,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
        )

    def systems() -> Iterator[System]:
        yield System(BASE, answers_of(load_base()))
        for method, rate, seed in progress(runs, "training"):
            model = _trained(load_base(), tokenizer, methods[method], method, rate, seed,
                             examples, work, settings)  # fmt: skip
            parameters[method] = sum(p.numel() for p in model.parameters() if p.requires_grad)
            yield System(_named(method, rate), answers_of(model), seed)

    whole = evaluate(prompts, systems(), judge=judge, texts=texts)
    grader = whole.graders[0]
    chosen = {}
    for method in methods:
        score = {
            rate: _balanced(_some(whole.answers[_named(method, rate)], choosing), grader)
            for rate in settings.learning_rates
        } if several else {settings.learning_rates[0]: 0.0}  # fmt: skip
        # Of equals, the smaller rate.
        chosen[method] = max(sorted(score), key=lambda rate: score[rate])
    answers = {BASE: _some(whole.answers[BASE], reported)}
    answers |= {
        method: _some(whole.answers[_named(method, rate)], reported)
        for method, rate in chosen.items()
    }
    evaluation = replace(
        whole, answers=answers, prompts=tuple(prompts[place] for place in reported)
    )
    used = {m: rate * (FULL_RATE if m == FULL else 1) for m, rate in chosen.items()}
    return Comparison(evaluation, used, parameters, len(choosing))


def _trained(
    base: Any,
    tokenizer: Any,
    subspace_for: Callable[[int], Subspace | None],
    method: str,
    rate: float,
    seed: int,
    examples: Sequence[Example],
    work: Path,
    settings: ComparisonSettings,
) -> Any:
    from safesail.alignment._adapter import make_adapter, make_plain_adapter
    from safesail.alignment._fill import fill_subspace
    from safesail.alignment._training import fit

    common: dict[str, Any] = {"modules": settings.modules, "rank": settings.rank, "seed": seed}
    if method == FULL:
        model, rate = base, rate * FULL_RATE
        for parameter in model.parameters():
            parameter.requires_grad_(requires_grad=True)
    else:
        subspace = subspace_for(seed)
        if subspace is None:
            model = make_plain_adapter(base, **common)
        else:
            # A route of fewer directions is filled up, so that all have as many parameters.
            # Modules without a basis get the nearest one, so that every first factor of every
            # method has the same length, which by itself decides how fast it learns.
            filled = fill_subspace(subspace, settings.rank, seed=seed)
            model = make_adapter(base, filled, uncovered="nearest", **common)
    options = replace(settings.options, learning_rate=rate, seed=seed)
    folder = work / f"{method}-{rate:g}-{seed}"
    fit(model, tokenizer, examples, folder, options=options, overwrite=True)
    shutil.rmtree(folder, ignore_errors=True)
    return model.eval()


def _named(method: str, rate: float) -> str:
    return f"{method} at {rate:g}"


def _split(prompts: Sequence[EvaluationPrompt]) -> tuple[list[int], list[int]]:
    """Places of prompts that choose, and of those that report: of each kind and group alike."""
    seen: dict[tuple[str, str], int] = {}
    choosing: list[int] = []
    reported: list[int] = []
    for place, prompt in enumerate(prompts):
        number = seen.get((prompt.kind, prompt.group), 0)
        seen[prompt.kind, prompt.group] = number + 1
        (reported if number % _CHOOSING_PART else choosing).append(place)
    kinds = {"harmful", "look_alike"}
    for side in (choosing, reported):
        if not kinds <= {prompts[place].kind for place in side}:
            raise InputError(
                "too few prompts to choose learning rates on some and report others: give at least "
                "two harmful ones and two look-alikes, or one learning rate"
            )
    return choosing, reported


def _some(answers: Answers, places: Sequence[int]) -> Answers:
    return Answers(
        {seed: [said[place] for place in places] for seed, said in answers.replies.items()},
        answers.likelihoods,
    )


def _balanced(answers: Answers, grader: Any) -> float:
    safety = figures("", answers, grader).safety
    value = math.nan if safety is None else safety.balanced.value
    return -math.inf if math.isnan(value) else value
