"""Ask a judge for contrast pairs, some at a time, until enough of them pass the checks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from anyio.from_thread import start_blocking_portal

from safesail.concepts import ContrastPair
from safesail.errors import InputError, JudgeError
from safesail.generating._answers import ContrastPairsAnswer
from safesail.generating._checks import PairChecks
from safesail.generating._pairs import CheckedPair
from safesail.generating._set_report import SetReport, report_on
from safesail.generating._text_faults import scripts_of
from safesail.judging import Answer, Judge, Question, prompt_version, render

_PAIRS_PER_QUESTION = 10
# Questions beyond which it is given up: twice those that a judge without a fault needs, and two.
_PATIENCE = 2
# So many questions in a row without a pair that passed, and more of them are wasted.
_MOST_IDLE = 3
_MOST_TAKEN_SHOWN = 60
_TOKENS = 200
_TOKENS_PER_PAIR = 200

FORMS = (
    "a user's question to an assistant",
    "an instruction to an assistant",
    "a plain statement",
    "a line of dialogue",
    "a news sentence",
    "a forum post",
    "a first-person message to a friend",
    "a sentence of a story",
    "a remark in an e-mail at work",
    "a short review or comment",
    "a title or headline",
    "a line of a diary",
)


@dataclass(frozen=True)
class GeneratedPairs:
    """What came of asking a judge for contrast pairs.

    Attributes:
        concept: name of the concept.
        description: what the judge was told of it.
        language: tag of the texts' language.
        seed: of the order of forms and of the set's measures.
        judge_url, judge_model, prompt_version: who was asked, and how.
        wanted: pairs wanted.
        asked: pairs asked for, over all questions.
        pairs: every pair that was written, in order, with its faults and flags.
        answers: what came of each question.
        report: measures of the set of pairs that passed.
        stopped: why asking ended before there were enough; None where there are.
    """

    concept: str
    description: str
    language: str
    seed: int
    judge_url: str
    judge_model: str
    prompt_version: str
    wanted: int
    asked: int
    pairs: tuple[CheckedPair, ...]
    answers: tuple[Answer, ...]
    report: SetReport
    stopped: str | None

    @property
    def kept(self) -> list[CheckedPair]:
        """The pairs that passed every check."""
        return [pair for pair in self.pairs if pair.passed]

    @property
    def dropped(self) -> dict[str, int]:
        """Number of pairs that did not pass, by the first reason found in each; most first."""
        reasons = Counter(pair.faults[0].reason for pair in self.pairs if not pair.passed)
        return {str(reason): count for reason, count in reasons.most_common()}

    @property
    def script_checked(self) -> bool:
        """Whether the script of the language is known here, so that texts were held to it."""
        return bool(scripts_of(self.language))

    @property
    def statuses(self) -> dict[str, int]:
        """Number of questions by what came of them."""
        return dict(Counter(str(answer.status) for answer in self.answers))

    @property
    def cost_usd(self) -> float | None:
        """Dollars for all answers, cached ones included; None where the model has no price."""
        total = 0.0
        for answer in self.answers:
            if answer.cost_usd is not None:
                total += answer.cost_usd
            elif answer.prompt_tokens or answer.completion_tokens:
                return None
        return total


def generate_pairs(
    judge: Judge,
    concept: str,
    description: str,
    *,
    count: int = 40,
    language: str = "en",
    existing: Sequence[ContrastPair] = (),
    seed: int = 0,
    progress: Callable[[Iterable, str], Iterable] = lambda items, label: items,
) -> GeneratedPairs:
    """Have a judge write contrast pairs for a concept, and check each.

    Questions follow one another, each showing texts that are taken; so a repeated run asks the
    same questions and is answered from the judge's cache. Asking ends when `count` pairs passed,
    after twice the questions that this takes at best and two more, or after three in a row that
    brought nothing.

    Args:
        judge: who writes.
        concept: name, or `parent/child`.
        description: what the concept is, for the judge.
        count: pairs wanted, at least 1.
        language: tag of the language to write in.
        existing: the study's pairs; none is repeated.
        seed: another one asks for the forms in another order, so that other pairs come.
        progress: wraps an iterable with a label.

    Raises:
        JudgeError: the judge cannot be asked at all. Once pairs are there, they are kept, and
            `stopped` says so.
        StorageError: an answer could not be stored.
        InputError: no description.
    """
    if not description.strip():
        raise InputError(f"concept {concept!r} has no description: say what its texts carry")
    asking = _Asking(judge, concept, description.strip(), count, language, existing, seed)
    with start_blocking_portal() as portal:  # also where an event loop runs, as in a notebook
        portal.call(asking.run, progress)
    kept = [pair for pair in asking.pairs if pair.passed]
    report = report_on(kept, seed=seed)
    return GeneratedPairs(
        concept=concept,
        description=description.strip(),
        language=language,
        seed=seed,
        judge_url=judge.url,
        judge_model=judge.model,
        prompt_version=prompt_version("contrast_pairs"),
        wanted=count,
        asked=asking.asked,
        pairs=tuple(report.flag(pair) if pair.passed else pair for pair in asking.pairs),
        answers=tuple(asking.answers),
        report=report,
        stopped=asking.stopped,
    )


class _Asking:
    """One run of questions, and what it has so far."""

    def __init__(
        self,
        judge: Judge,
        concept: str,
        description: str,
        count: int,
        language: str,
        existing: Sequence[ContrastPair],
        seed: int,
    ) -> None:
        self._judge = judge
        self._concept, self._description, self._language = concept, description, language
        self._count = count
        self._checks = PairChecks(concept, language, count, existing)
        self._taken = [pair.positive for pair in existing if pair.concept == concept]
        self._forms = random.Random(seed).sample(FORMS, len(FORMS))
        self._kept = 0
        self.asked = 0
        self.pairs: list[CheckedPair] = []
        self.answers: list[Answer] = []
        self.stopped: str | None = None

    async def run(self, progress: Callable[[Iterable, str], Iterable]) -> None:
        most = _PATIENCE * math.ceil(self._count / _PAIRS_PER_QUESTION) + 2
        idle = 0
        async with self._judge:
            for number in progress(range(most), "asking the judge"):
                wanted = min(_PAIRS_PER_QUESTION, self._count - self._kept)
                question = self._question(wanted)
                self.asked += wanted
                try:
                    # The number keeps questions apart that happen to be worded alike.
                    answer = await self._judge.ask(question, replicate=number)
                except JudgeError as error:
                    if not self.pairs:
                        raise
                    self.stopped = str(error)
                    return
                self.answers.append(answer)
                if answer.status == "budget":
                    self.stopped = answer.error
                    return
                before = self._kept
                if isinstance(answer.value, ContrastPairsAnswer):
                    self._take(answer.value)
                if self._kept >= self._count:
                    return
                idle = idle + 1 if self._kept == before else 0
                if idle == _MOST_IDLE:
                    self.stopped = f"{idle} questions in a row brought no pair that passed"
                    return
        self.stopped = f"{most} questions were asked"

    def _question(self, wanted: int) -> Question:
        # Forms go on where the last question ended.
        start = self.asked % len(self._forms)
        prompt = render(
            "contrast_pairs",
            concept=self._concept,
            description=self._description,
            count=wanted,
            styles=[self._forms[(start + n) % len(self._forms)] for n in range(wanted)],
            language=self._language,
            taken=self._taken[-_MOST_TAKEN_SHOWN:],
        )
        return Question(
            prompt.task,
            prompt.version,
            prompt.messages,
            ContrastPairsAnswer,
            _TOKENS + _TOKENS_PER_PAIR * wanted,
        )

    def _take(self, answer: ContrastPairsAnswer) -> None:
        """Check pairs until there are enough; of an answer, no more than twice those wanted."""
        for written in islice(answer.pairs, 2 * _PAIRS_PER_QUESTION):
            if self._kept >= self._count:
                return
            pair = self._checks.check(written.positive, written.negative)
            self.pairs.append(pair)
            if pair.passed:
                self._kept += 1
                self._taken.append(pair.positive)
