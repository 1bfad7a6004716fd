"""The `safesail` command: registers commands, prints errors as one line."""

from __future__ import annotations

import sys

import typer

from . import (
    align,
    collect,
    concepts,
    convert_sae,
    demo,
    diagnose,
    doctor,
    evaluate,
    explain,
    export,
    import_tables,
    init,
    intervene,
    judge,
    landscape,
    list_saes,
    merge,
    rank_saes,
    release,
    report,
    schema,
    serve,
    show,
    train_saes,
)
from ._output import report_error, report_interrupt

_INTERRUPTED = 130

app = typer.Typer(
    name="safesail",
    help="Rank sparse autoencoders by your safety concepts, explain their features, export tables.",
    epilog="Start with `safesail demo`, or `safesail init MY-STUDY --model NAME`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("list-saes")(list_saes.list_saes)
app.command("convert-sae")(convert_sae.convert_sae)
app.command("train-saes")(train_saes.train_saes)
app.command("rank-saes")(rank_saes.rank_saes)
app.command("collect")(collect.collect)
app.command("merge")(merge.merge)
app.command("explain")(explain.explain)
app.add_typer(concepts.app, name="concepts")
app.add_typer(judge.app, name="judge")
app.command("show")(show.show)
app.command("report")(report.report)
app.command("serve")(serve.serve)
app.command("diagnose")(diagnose.diagnose)
app.command("intervene")(intervene.intervene)
app.command("landscape")(landscape.landscape)
app.add_typer(align.app, name="align")
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("import")(import_tables.import_tables)
app.command("release")(release.release)
app.command("schema")(schema.schema)


def main() -> None:
    """Run the command line; exit code 1 for errors, 2 for wrong usage, 130 for Ctrl-C."""
    from safesail.errors import SafesailError

    try:
        app()
    except SafesailError as error:
        report_error(error)
        sys.exit(1)
    except SystemExit as stop:
        # Typer turns Ctrl-C into this exit code, without a word.
        if stop.code == _INTERRUPTED:
            report_interrupt()
        raise
