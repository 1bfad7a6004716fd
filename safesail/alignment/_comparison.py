"""Train the same adapter from several beginnings, and compare what comes of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safesail.alignment._evaluation import Evaluation, System, evaluate
from safesail.alignment._generation import ModelAnswers
from safesail.alignment._kept import KEPT, KeptAnswers, digest
from safesail.alignment._prompts import check_prompts, check_unseen, prompt_digest
from safesail.alignment._runs import (
    FULL,
    Beginning,
    ComparisonSettings,
    Run,
    complete,
    own_rate,
    rate_name,
    train_run,
)
from safesail.errors import AlignmentError, InputError

if TYPE_CHECKING:
    from safesail.alignment._data import Example
    from safesail.alignment._prompts import EvaluationPrompt
    from safesail.judging import Judge

BASE, LORA = "base", "lora"
ADAPTERS = "adapters"
_CHOOSING_PART = 3
"""One prompt in so many chooses learning rates: our choice."""
_WORK = ".work"


@dataclass(frozen=True)
class Comparison:
    """What came of each method.

    Attributes:
        evaluation: of the base and of each method at its learning rate, on prompts that chose
            nothing.
        choosing: of each method at each rate, on the prompts that chose; None with one rate.
        learning_rates: that each method was trained with.
        diverged: rates, by method, at which the loss of some seed's training did not stay finite;
            a method that has no other rate is in no table.
        parameters: trained, by method.
        directions: by method, the directions of its own in each basis; what is missing to
            the rank was filled up with random ones.
        against: the method that the others are compared with: plain LoRA, or else the first.
    """

    evaluation: Evaluation
    choosing: Evaluation | None
    learning_rates: Mapping[str, float]
    diverged: Mapping[str, tuple[float, ...]]
    parameters: Mapping[str, int]
    directions: Mapping[str, tuple[int, ...]]
    against: str


def check_comparison(
    methods: Collection[str],
    examples: Sequence[Example],
    prompts: Sequence[EvaluationPrompt],
    settings: ComparisonSettings,
) -> None:
    """What can be known before anything is read or trained; `compare` checks it too.

    Raises:
        InputError: no method, seed or learning rate; one named twice; too few prompts to set some
            aside; prompts that do not fit (see `check_prompts`), or that are trained on.
    """
    if not methods or not settings.seeds or not settings.learning_rates:
        raise InputError("name at least one method, one seed and one learning rate")
    if len(set(methods)) < len(methods):
        raise InputError("a method is named twice")
    if len(set(settings.learning_rates)) < len(settings.learning_rates):
        raise InputError("a learning rate is named twice")
    check_prompts(prompts)
    check_unseen(prompts, {prompt_digest(one.prompt) for one in examples}, "every method")
    if len(settings.learning_rates) > 1:
        _split(prompts)


def compare(
    load_base: Callable[[], Any],
    tokenizer: Any,
    methods: Mapping[str, Beginning],
    examples: Sequence[Example],
    prompts: Sequence[EvaluationPrompt],
    folder: Path,
    settings: ComparisonSettings,
    *,
    model: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    texts: Sequence[str] = (),
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Comparison:
    """Train every method with every learning rate and seed, and have all answer the same prompts.

    Every third prompt of a kind and group chooses the learning rate of each method, by the
    balanced score; the figures are of the others. Without a judge, refusal rules score. Answers are
    kept in `folder`/kept as they come, and a training goes on from its last checkpoint, so the same
    call after a kill goes on where it was, and one with more methods, seeds, rates or prompts
    trains and asks what is new alone. Trained adapters are kept in `folder`/adapters. At rates that
    were not chosen only the choosing prompts are answered, but by full fine-tuning, whose weights
    are not kept.

    Args:
        load_base: gives the base model anew, for training changes what it is given.
        tokenizer: the model's.
        methods: by name. The name `full` stands for full fine-tuning.
        examples: prompts and answers, benign ones among them.
        prompts: to be answered.
        folder: of answers and checkpoints.
        settings: how all are trained.
        model: what the base is, as JSON; with a method's key and the settings it tells answers
            apart.
        about: what the provenance of each adapter says beside its options, as JSON.
        judge: who grades.
        texts: held-out texts, for perplexity.
        progress: wraps an iterable with a label.

    Raises:
        InputError: see `check_comparison`.
        AlignmentError: no training of any method stayed finite.
        SafesailError: see `evaluate`, `make_adapter` and `fit`.
    """
    check_comparison(methods, examples, prompts, settings)
    several = len(settings.learning_rates) > 1
    choosing, reported = _split(prompts) if several else ([], list(prompts))
    common = {**model, "max_new_tokens": settings.max_new_tokens}

    def answers_of(trained: Any) -> ModelAnswers:
        return ModelAnswers(
            trained,
            tokenizer,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
        )

    def run_of(method: str, rate: float, seed: int) -> Run:
        def make() -> ModelAnswers:
            start = methods[method].subspace
            return answers_of(
                train_run(load_base(), tokenizer, start, run, examples, settings, about or {})
            )

        key = {
            **common,
            "method": method,
            "beginning": dict(methods[method].key),
            "examples": digest([list(one) for one in examples]),
            "rank": settings.rank,
            "modules": sorted(set(settings.modules)),
            "options": {**asdict(settings.options), "learning_rate": rate, "seed": seed},
        }
        name = digest(key)
        kept = KeptAnswers(folder / KEPT, key, make)
        adapter = folder / ADAPTERS / f"{method}-{rate:g}-{seed}-{name[:8]}"
        run = Run(method, rate, seed, kept, folder / _WORK / name, adapter)
        return run

    asked = [one.prompt for one in prompts]
    base = KeptAnswers(folder / KEPT, common, lambda: answers_of(load_base()))
    base.complete(asked, texts)
    runs = [
        run_of(method, rate, seed)
        for method in methods
        for rate in settings.learning_rates
        for seed in settings.seeds
    ]
    for run in progress(runs, "training"):
        if several and run.method != FULL:
            complete(run, [one.prompt for one in choosing], ())
        else:
            complete(run, asked, texts)
    with contextlib.suppress(OSError):  # another comparison's training may be left in it
        (folder / _WORK).rmdir()
    diverged = {(run.method, run.rate) for run in runs if "diverged" in run.kept.facts}
    finite = [run for run in runs if (run.method, run.rate) not in diverged]
    if not finite:
        raise AlignmentError(
            "the loss of every method became infinite or no number at every learning rate: give "
            "lower --learning-rates"
        )
    tried = None
    if several:
        tried = evaluate(choosing, [run.system for run in finite], judge=judge, progress=progress)
    chosen = _best_rates(finite, tried)
    best = [run for run in finite if run.rate == chosen[run.method]]
    for run in progress(best, "answering prompts"):
        complete(run, asked, texts)
    systems = [System(BASE, base)]
    systems += [System(run.method, run.kept, run.seed) for run in best]
    return Comparison(
        evaluate(reported, systems, judge=judge, texts=texts, progress=progress),
        tried,
        {method: own_rate(method, rate) for method, rate in chosen.items()},
        {
            method: tuple(own_rate(method, r) for m, r in sorted(diverged) if m == method)
            for method in methods
            if any(m == method for m, _ in diverged)
        },
        {run.method: run.kept.facts["parameters"] for run in finite},
        {
            run.method: tuple(run.kept.facts["directions"])
            for run in finite
            if "directions" in run.kept.facts
        },
        LORA if LORA in chosen else next(iter(chosen)),
    )


def _split(
    prompts: Sequence[EvaluationPrompt],
) -> tuple[list[EvaluationPrompt], list[EvaluationPrompt]]:
    """Prompts that choose, and those that report: of each kind and group alike."""
    seen: dict[tuple[str, str], int] = {}
    choosing: list[EvaluationPrompt] = []
    reported: list[EvaluationPrompt] = []
    for prompt in prompts:
        number = seen.get((prompt.kind, prompt.group), 0)
        seen[prompt.kind, prompt.group] = number + 1
        (reported if number % _CHOOSING_PART else choosing).append(prompt)
    for side in (choosing, reported):
        if not {"harmful", "look_alike"} <= {prompt.kind for prompt in side}:
            raise InputError(
                "too few prompts to choose learning rates on some and report others: give at least "
                "two harmful ones and two look-alikes, or one learning rate"
            )
    return choosing, reported


def _best_rates(runs: Sequence[Run], tried: Evaluation | None) -> dict[str, float]:
    """The rate of the best balanced score by method; of equals the smaller, and without a score."""
    scores: dict[str, float] = {}
    if tried is not None:
        for one in tried.figures():
            if one.grader == tried.graders[0] and one.safety is not None:
                value = one.safety.balanced.value
                scores[one.system] = -math.inf if math.isnan(value) else value
    found: dict[str, float] = {}
    for run in sorted(runs, key=lambda run: run.rate):
        score = scores.get(rate_name(run.method, run.rate), -math.inf)
        best = found.get(run.method)
        if best is None or score > scores.get(rate_name(run.method, best), -math.inf):
            found[run.method] = run.rate
    # In the order of the methods.
    return {run.method: found[run.method] for run in runs}
