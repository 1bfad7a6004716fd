"""Evaluate models on the same prompts: answers, grades, and figures side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from safesail.alignment._figures import Answers, Figures, difference, figures
from safesail.alignment._generation import Likelihood, Reply
from safesail.alignment._grades import Grading, grade_answers
from safesail.alignment._measures import GradedReply, Grader
from safesail.alignment._prompts import EvaluationPrompt, check_prompts
from safesail.alignment._refusals import read_refusal
from safesail.errors import InputError
from safesail.judging import Judge, prompt_version


class Generator(Protocol):
    """What answers prompts, such as `ModelAnswers`."""

    def answer(self, prompts: Sequence[str]) -> Sequence[Reply]:
        """Answers to prompts, in their order."""

    def likelihood(self, texts: Sequence[str]) -> Sequence[Likelihood]:
        """How likely texts are; asked only where held-out texts are given."""


@dataclass(frozen=True)
class System:
    """What is evaluated: a base, an adapter, a control.

    Attributes:
        name: in the tables.
        generator: what answers.
        seed: of the training, where systems of one name were trained several times.
    """

    name: str
    generator: Generator
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Systems that answered the same prompts.

    Attributes:
        answers: of each system by name, in the order in which they came.
        prompts: what was asked.
        judge: model of the judge; None where the refusal rules alone told refusals.
        judge_url, prompt_version: of the judge; None without one.
        grading: what the judge was asked and cost; None without one.
    """

    answers: dict[str, Answers]
    prompts: tuple[EvaluationPrompt, ...]
    judge: str | None
    judge_url: str | None
    prompt_version: str | None
    grading: Grading | None

    @property
    def graders(self) -> tuple[Grader, ...]:
        """Who told refusals: the judge where there was one; the refusal rules, as a baseline."""
        return ("lexical",) if self.judge is None else ("judge", "lexical")

    @property
    def statuses(self) -> dict[str, int]:
        """Number of answers by what came of their grading; none without a judge."""
        return dict(Counter(one.status for one in self.grading.grades) if self.grading else {})

    def figures(self) -> list[Figures]:
        """Figures of each system, by each grader."""
        return [
            figures(name, answers, grader)
            for grader in self.graders
            for name, answers in self.answers.items()
        ]

    def differences(self, against: str) -> list[Figures]:
        """Figures of every other system less those of one, paired by prompt and by seed.

        Raises:
            InputError: there is no such system, or it shares no seed with another one.
        """
        if against not in self.answers:
            names = ", ".join(self.answers)
            raise InputError(f"no system {against!r} was evaluated; there are {names}")
        try:
            return [
                difference(name, answers, against, self.answers[against], grader)
                for grader in self.graders
                for name, answers in self.answers.items()
                if name != against
            ]
        except ValueError as error:
            raise InputError(f"{error}: train both with the same seeds") from error


def evaluate(
    prompts: Sequence[EvaluationPrompt],
    systems: Iterable[System],
    *,
    judge: Judge | None = None,
    texts: Sequence[str] = (),
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> Evaluation:
    """Have systems answer prompts, and grade what they say.

    Without a judge the refusal rules tell refusals, and all that rests on them is labelled
    `lexical`; with one, both do.

    Args:
        prompts: what to ask; harmful ones need look-alikes beside them.
        systems: taken one at a time, so that each may be loaded when its turn comes.
        judge: who grades answers from 1 to 5.
        texts: held-out texts, for perplexity.
        progress: wraps an iterable with a label.

    Raises:
        InputError: the prompts do not fit (see `check_prompts`), there is no system, or a name
            comes twice with one seed.
        AlignmentError: a model has no room for a prompt, or memory is short.
        JudgeError: the judge cannot be asked at all.
        StorageError: a judge's answer could not be stored.
    """
    check_prompts(prompts)
    replies: dict[tuple[str, int], Sequence[Reply]] = {}
    likelihoods: dict[tuple[str, int], Sequence[Likelihood]] = {}
    for system in progress(systems, "answering prompts"):
        key = (system.name, system.seed)
        if key in replies:
            raise InputError(
                f"two systems are called {system.name!r} with seed {system.seed}: give them names "
                "or seeds of their own"
            )
        replies[key] = system.generator.answer([one.prompt for one in prompts])
        if texts:
            likelihoods[key] = system.generator.likelihood(texts)
    if not replies:
        raise InputError("there is no system to evaluate")
    grading = None
    if judge is not None:
        exchanges = [
            (prompt.prompt, reply.text)
            for said in replies.values()
            for prompt, reply in zip(prompts, said, strict=True)
        ]
        grading = grade_answers(judge, exchanges, progress=progress)
    grades = iter(grading.grades if grading else ())
    graded = {
        (name, seed): [
            GradedReply(name, seed, prompt, reply, read_refusal(reply.text), next(grades, None))
            for prompt, reply in zip(prompts, said, strict=True)
        ]
        for (name, seed), said in replies.items()
    }
    return Evaluation(
        {
            name: Answers(
                {seed: rows for (other, seed), rows in graded.items() if other == name},
                {seed: rows for (other, seed), rows in likelihoods.items() if other == name},
            )
            for name in dict.fromkeys(name for name, _ in graded)
        },
        tuple(prompts),
        None if judge is None else judge.model,
        None if judge is None else judge.url,
        None if judge is None else prompt_version("safety_grade"),
        grading,
    )
