"""`safesail judge`: what it is worth, what it was asked so far, and what that cost."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import note, number, print_json, print_table, printable, say
from ._qualify import qualify

if TYPE_CHECKING:
    from safesail.judging import StoredAnswer

_SHOWN_KEY = 12
_TOTALS = (
    *("endpoint", "model", "task", "answers", "prompt", "completion", "reasoning"),
    *("median s", "p95 s", "USD"),
)

TaskOption = Annotated[
    str | None, typer.Option("--task", help="Only this task: explain, items, segments ...")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only answers of this model.")]

app = typer.Typer(
    help="Qualify a judge; look into what it was asked, what it cost, and forget answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.command("qualify")(qualify)


@app.command("log")
def log(
    study: StudyOption = Path(),
    task: TaskOption = None,
    model: ModelOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", help="At most so many, the latest first.", min=1)
    ] = 20,
    show: Annotated[
        str | None,
        typer.Option("--show", help="Print request and response of the answer with this key."),
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the judge's latest answers, or show one of them in full.

    The status is read off the response: any JSON object counts as answered, whether or not it fits
    what was asked. Failed requests are not stored.

    \b
    Examples:
      safesail judge log --task explain
      safesail judge log --show 3f2a9c
    """
    from safesail.judging import History
    from safesail.study import Study

    history = History(Study.open(study).judge_cache)
    if show is not None:
        _show(history.one(show), json)
        return
    found = list(islice(history.answers(task=task, model=model), limit))
    if json:
        print_json([_as_json(answer) for answer in found])
        return
    print_table(
        ("key", "when (UTC)", "task", "model", "status", "prompt", "completion", "s", "USD"),
        [
            (
                answer.key[:_SHOWN_KEY],
                answer.created_at[:19].replace("T", " "),
                answer.task,
                answer.model,
                answer.status,
                str(answer.prompt_tokens),
                str(answer.completion_tokens),
                number(answer.seconds, 1),
                number(answer.cost_usd, 5),
            )
            for answer in found
        ],
        numbers=(5, 6, 7, 8),
    )


@app.command("stats")
def stats(
    study: StudyOption = Path(), json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Add up the judge's answers by endpoint, model and task: tokens, time and dollars.

    \b
    Example:
      safesail judge stats --study my-study
    """
    from dataclasses import asdict

    from safesail.judging import History
    from safesail.study import Study

    totals = History(Study.open(study).judge_cache).totals()
    if json:
        print_json([asdict(one) for one in totals])
        return
    print_table(
        _TOTALS,
        [
            (
                one.url,
                one.model,
                one.task,
                f"{one.answers:,}",
                f"{one.prompt_tokens:,}",
                f"{one.completion_tokens:,}",
                f"{one.reasoning_tokens:,}",
                number(one.median_seconds, 1),
                number(one.p95_seconds, 1),
                number(one.cost_usd, 4),
            )
            for one in totals
        ],
        numbers=range(3, 10),
    )
    unpriced = sum(one.unpriced for one in totals)
    if unpriced:
        say(f"{unpriced:,} answers have no price and are not in the dollars")
    note("stored answers only: requests that failed are not kept")


@app.command("forget")
def forget(
    study: StudyOption = Path(),
    task: TaskOption = None,
    model: ModelOption = None,
    key: Annotated[
        str | None, typer.Option("--key", help="Only answers whose key begins like this.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only refusals.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All answers, and what judges were found to be worth.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete stored answers, so that they are asked, and paid for, again.

    Several options together delete what fits all of them.

    \b
    Examples:
      safesail judge forget --refused --model gpt-4o
      safesail judge forget --key 3f2a9c --yes
    """
    from safesail.judging import History
    from safesail.study import Study

    criteria: dict[str, Any] = {"task": task, "model": model, "key": key, "refused": refused}
    if everything == any(criteria.values()):
        raise typer.BadParameter(
            "say which answers: --task, --model, --key or --refused, or --all without these"
        )
    history = History(Study.open(study).judge_cache)
    keys, priced, cost = [], 0, 0.0
    for answer in history.answers(**criteria):
        keys.append(answer.key)
        priced += answer.cost_usd is not None
        cost += answer.cost_usd or 0.0
    reports = history.qualifications() if everything else 0
    paid = f"{len(keys):,} answers, of which {priced:,} cost {cost:.4f} US dollars"
    if reports:
        paid += f", and {reports} report{'s' * (reports > 1)} of what judges were found to be worth"
    if (keys or reports) and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"would delete {paid}: add --yes")
        typer.confirm(f"Delete {paid}?", abort=True, err=True)
    deleted = history.forget(keys) if keys else 0
    if everything:
        history.forget_qualifications()
    if json:
        print_json(
            {"deleted": deleted, "qualifications": reports, "priced": priced, "cost_usd": cost}
        )
    else:
        say(f"deleted {paid}")


def _show(answer: StoredAnswer, json: bool) -> None:
    if json:
        print_json(_as_json(answer) | {"request": answer.request, "response": answer.response})
        return
    for name, value in _as_json(answer).items():
        say(f"{name}: {printable(str(value))}")
    for name, text in (("request", answer.request), ("response", answer.response)):
        say(f"\n{name}:")
        for line in _readable(text).split("\n"):
            say(printable(line))


def _readable(text: str) -> str:
    """JSON with line breaks, also within its texts; other text as it is."""
    from json import dumps, loads

    try:
        document = loads(text)
    except ValueError:
        return text
    return dumps(document, ensure_ascii=False, indent=2).replace("\\n", "\n")


def _as_json(answer: StoredAnswer) -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(answer)
    for name in ("status_code", "request", "response"):
        del fields[name]
    return fields | {"status": answer.status}
