"""`corank report`: records in, one page with tables and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import corank.cli.options as options
from corank.cli.outputs import check_report, write_all
from corank.cli.screen import results_console, show_lines
from corank.reports import comparison_table, read_record, write_report

__all__ = ["report"]


def report(
    context: typer.Context,
    records: Annotated[list[Path], typer.Argument(help="Files written with --record.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE.html", help="A folder, made if missing, or a name ending in .html.")
    ],
    quiet: options.Quiet = False,
) -> None:
    """Make an HTML report of one or more record files."""
    check_report(out)
    runs = [run for path in records for run in read_record(path)]
    written = write_all((out, lambda path: write_report(path, runs)))
    if not quiet:
        console = results_console()
        console.print(comparison_table(runs))
        show_lines(console, [f"wrote {path}" for path in written])
