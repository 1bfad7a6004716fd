"""Everything the commands print goes through here: tables, JSON, progress, errors."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from safesail.errors import SafesailError

_debug = False


def set_debug(value: bool) -> bool:
    """Show the trace of an error, as `--debug` or SAFESAIL_DEBUG asks."""
    global _debug
    _debug = value or bool(os.environ.get("SAFESAIL_DEBUG"))
    return value


def report_error(error: SafesailError) -> None:
    """Print an error as one line on stderr, with its trace where asked."""
    if _debug:
        traceback.print_exception(error, file=sys.stderr)
    line = " ".join(str(error).split())
    typer.secho(f"error: {printable(line)}", fg=typer.colors.RED, err=True)


def report_interrupt() -> None:
    """Say that a stopped run lost nothing."""
    typer.echo("\nstopped; what was finished is kept: run the same command to go on", err=True)


def note(text: str) -> None:
    """Print a line for people, on stderr."""
    typer.echo(text, err=True)


def say(text: str = "") -> None:
    """Print a line of the result."""
    typer.echo(text)


def print_json(value: Any) -> None:
    """Print a result for machines; what is not a finite number is null."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def progress(items: Iterable, label: str) -> Iterable:
    """A progress bar on stderr, absent where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(items, desc=label, leave=False, disable=not sys.stderr.isatty(), file=sys.stderr)


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()
) -> None:
    """Print an aligned table; columns in `numbers` are right-aligned.

    Text from models is shown as it is: no markup is read, control characters are made visible.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    right = set(numbers)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Without a terminal, lines are not cut: whoever reads them knows their own width.
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def number(value: float | None, digits: int = 2) -> str:
    """A number of a table; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    # Else what rounds to 0 from below is "-0.00".
    return f"{round(value, digits) + 0.0:.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """An estimate with its 95 % interval."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def percent(share: float | None) -> str:
    """A share of a table as whole per cent."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.0f} %"


def printable(text: str) -> str:
    """Text with control characters replaced by visible signs."""
    return "".join(
        c if c.isprintable() or c == " " else {"\n": "⏎", "\t": "⇥"}.get(c, "�") for c in text
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
