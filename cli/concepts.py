"""`safesail concepts`: contrast pairs that the judge writes and a person accepts."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import (
    BudgetOption,
    DebugOption,
    FallbackJudgeOption,
    FallbackUrlOption,
    JsonOption,
    JudgeUrlOption,
    StudyOption,
)
from ._output import note, number, print_json, print_table, printable, progress, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from safesail.generating import CheckedPair, GeneratedPairs, SetReport

# As docs/concepts.md: where each concept has fewer, intervals are rough.
_ENOUGH_PAIRS = 20
_SIGNIFICANT = 0.05

YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Replace a file that lies there without asking.")
]

app = typer.Typer(
    help="Write contrast pairs for a concept that has none, review and accept them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("generate")
def generate(
    name: Annotated[str, typer.Argument(help="Name of the concept, or parent/child.")],
    description: Annotated[
        str, typer.Option("--description", "-d", help="What texts of the concept carry.")
    ],
    count: Annotated[
        int, typer.Option("--count", "-n", help="Pairs wanted.", min=1, max=1_000)
    ] = 40,
    language: Annotated[
        str, typer.Option("--language", help="Language of the texts, as a tag: en, zh.")
    ] = "en",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File for accepted pairs; by default concepts/NAME.jsonl of the study.",
        ),
    ] = None,
    judge_url: JudgeUrlOption = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", help="Model at that URL.")
    ] = None,
    fallback_judge: FallbackJudgeOption = None,
    fallback_url: FallbackUrlOption = None,
    budget: BudgetOption = None,
    study: StudyOption = Path(),
    seed: Annotated[int, typer.Option("--seed", help="Another one brings other pairs.", min=0)] = 0,
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Have the judge write contrast pairs for a concept; they are checked and kept for review.

    Nothing is used before you looked at it: the pairs go to NAME.review.jsonl with what the checks
    found. Set `keep` there, mend words, then `safesail concepts accept NAME.review.jsonl`.

    \b
    Examples:
      safesail concepts generate scam/romance -d "feigned love to get money"
      safesail concepts generate 诈骗 -d "骗取钱财" --language zh --count 20
    """
    from safesail.errors import JudgeError
    from safesail.pipeline import generate_concept
    from safesail.study import Study

    opened = Study.open(study).with_judge(
        url=judge_url,
        model=judge_model,
        fallback_url=fallback_url,
        fallback_model=fallback_judge,
    )
    found, review = generate_concept(
        opened,
        name,
        description,
        count=count,
        language=language,
        output=output,
        seed=seed,
        budget=budget,
        replace=_may_replace(yes),
        progress=progress,
    )
    if json:
        print_json(_as_json(found, review))
    else:
        _print_pairs(enumerate(found.pairs, start=2))  # below the line that says who was asked
        _print_summary(found)
    if review is None:
        raise JudgeError(f"the judge wrote no pair: {_last_error(found)}; run again to ask again")
    note(f"written: {review}")
    where = "" if study == Path() else f" --study {quote(str(study))}"
    command = f"safesail concepts accept {quote(str(review))}{where}"
    note(f"next: look at each pair, set `keep`, then `{command}`")


@app.command("accept")
def accept(
    review: Annotated[Path, typer.Argument(help="The review, NAME.review.jsonl.")],
    study: StudyOption = Path(),
    yes: YesOption = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the pairs of a review that you kept as a file of concepts, NAME.jsonl beside it.

    \b
    Example:
      safesail concepts accept concepts/scam/romance.review.jsonl
    """
    from safesail.pipeline import accept_concept
    from safesail.study import Study

    opened = Study.open(study)
    found = accept_concept(opened, review, replace=_may_replace(yes))
    if json:
        print_json(
            {
                "concept": found.concept,
                "path": str(found.path),
                "reference": found.reference,
                "listed": found.listed,
                "accepted": len(found.pairs),
                "left_out": found.left_out,
                "report": _report_as_json(found.report),
                "pairs": [_pair_as_json(pair) for pair in found.pairs],
            }
        )
    else:
        flagged = [(line, pair) for line, pair in enumerate(found.pairs, start=1) if pair.flags]
        if flagged:
            say("Accepted, though the checks say:")
            _print_pairs(flagged)
        say(f"{found.concept}: {len(found.pairs)} pairs accepted, {found.left_out} left out")
        _print_report(found.report)
    note(f"written: {found.path}")
    if not found.listed:
        note(f"next: add this line to `files` under [concepts] in {opened.folder}/safesail.toml:")
        say(f"  {_toml_text(found.reference)},")


def _may_replace(yes: bool) -> Callable[[Path], bool]:
    """Whether a file that lies there may be replaced: as agreed, or as a person says now."""

    def ask(path: Path) -> bool:
        if yes or not sys.stdin.isatty():
            return yes
        return typer.confirm(f"{printable(str(path))} exists. Replace it?", err=True)

    return ask


def _print_pairs(pairs: Iterable[tuple[int, CheckedPair]]) -> None:
    """Pairs with the line of the file that each stands in."""
    print_table(
        ("line", "keep", "positive", "negative", "to look at"),
        [
            (
                str(line),
                "yes" if pair.passed else "no",
                pair.positive,
                pair.negative,
                "; ".join(map(str, (*pair.faults, *pair.flags))) or "–",
            )
            for line, pair in pairs
        ],
        numbers=(0,),
    )


def _print_summary(found: GeneratedPairs) -> None:
    say(
        f"{found.concept}: {found.wanted} pairs wanted, {found.asked} asked for, "
        f"{len(found.pairs)} written, {len(found.kept)} kept for review, "
        f"{len(found.pairs) - len(found.kept)} dropped"
    )
    if found.dropped:
        say(f"  dropped, by the first reason found in each: {_counted(found.dropped)}")
    flags = [remark.reason for pair in found.kept for remark in pair.flags]
    if flags:
        say(f"  kept but flagged: {_counted({flag: flags.count(flag) for flag in flags})}")
    _print_report(found.report)
    tokens = _totals(found)
    cost = "no price known" if found.cost_usd is None else f"{found.cost_usd:.4f} US dollars"
    say(
        f"  judge {printable(found.judge_model)}: {len(found.answers)} questions "
        f"({_counted(found.statuses)}), {tokens['calls']} calls sent now, "
        f"{tokens['prompt_tokens']:,} prompt and {tokens['completion_tokens']:,} completion "
        f"tokens, {cost}"
    )
    if not found.script_checked:
        note(f"not checked: the script of language {printable(found.language)!r} is not known here")
    if found.stopped is not None:
        note(f"fewer than wanted: {printable(found.stopped)}")
    if any(answer.status != "answered" for answer in found.answers):
        note(f"not answered, for example: {_last_error(found)}")


def _print_report(report: SetReport) -> None:
    """What words and lengths alone say of the pairs, with what they would say by chance."""
    if report.best is not None:
        one = report.best
        say(
            f"  words: {printable(one.term)!r} alone tells the sides apart best (in "
            f"{one.positives} positives, {one.negatives} twins): balanced accuracy "
            f"{number(one.balanced_accuracy)}, by chance up to {number(report.best_by_chance)}"
        )
    if report.giveaways:
        named = ", ".join(repr(printable(one.term)) for one in report.giveaways)
        say(f"  giveaways, whose pairs are flagged: {named}")
    if report.word_accuracy is not None and report.word_accuracy_high is not None:
        low, high = number(report.word_accuracy_low), number(report.word_accuracy_high)
        beyond = report.word_accuracy > report.word_accuracy_high
        say(
            "  a classifier on words alone (logistic regression, cross-validated): accuracy "
            f"{number(report.word_accuracy)}, by chance {low} to {high}"
            f"{'; words tell sides apart' if beyond else ''}"
        )
    if report.length_p_value is not None:
        warned = "; length tells sides apart" if report.length_p_value < _SIGNIFICANT else ""
        say(
            f"  length: the positive is longer in {report.longer} pairs, shorter in "
            f"{report.shorter} (sign test: p = {number(report.length_p_value)}){warned}"
        )
    if report.pairs < _ENOUGH_PAIRS:
        say(f"  with fewer than {_ENOUGH_PAIRS} pairs a concept, intervals are rough")


def _as_json(found: GeneratedPairs, review: Path | None) -> dict[str, Any]:
    return {
        "concept": found.concept,
        "description": found.description,
        "language": found.language,
        "seed": found.seed,
        "judge_url": found.judge_url,
        "judge_model": found.judge_model,
        "prompt_version": found.prompt_version,
        "review": None if review is None else str(review),
        "wanted": found.wanted,
        "asked": found.asked,
        "written": len(found.pairs),
        "kept": len(found.kept),
        "dropped": found.dropped,
        "questions": found.statuses,
        **_totals(found),
        "cost_usd": found.cost_usd,
        "stopped": found.stopped,
        "script_checked": found.script_checked,
        "report": _report_as_json(found.report),
        "pairs": [_pair_as_json(pair) for pair in found.pairs],
    }


def _pair_as_json(pair: CheckedPair) -> dict[str, Any]:
    return {
        "keep": pair.passed,
        "positive": pair.positive,
        "negative": pair.negative,
        "faults": [str(fault) for fault in pair.faults],
        "flags": [str(flag) for flag in pair.flags],
    }


def _report_as_json(report: SetReport) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(report)


def _totals(found: GeneratedPairs) -> dict[str, int]:
    names = ("calls", "prompt_tokens", "completion_tokens")
    return {name: sum(getattr(answer, name) for answer in found.answers) for name in names}


def _last_error(found: GeneratedPairs) -> str:
    errors = [f"{one.status}, {one.error}" for one in found.answers if one.status != "answered"]
    return printable(errors[-1]) if errors else "its answers hold no pairs"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _toml_text(text: str) -> str:
    """A basic string of TOML: JSON's, but for the delete character."""
    from json import dumps

    return dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
