"""`corank report`: records in, one page with tables and pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import corank.cli.options as options
from corank.cli.outputs import check_report, write_all
from corank.cli.screen import results_console, show_lines
from corank.errors import ConfigError
from corank.reports import comparison_table, read_record, write_report, write_study

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
    studies = [run for run in runs if isinstance(run.get("trials"), list)]
    if studies and len(runs) > 1:
        raise ConfigError("a study has a page of its own; corank report STUDY.json --out DIR takes it alone")
    written = write_all((out, lambda path: write_study(path, runs[0]) if studies else write_report(path, runs)))
    if studies and not quiet:
        show_lines(results_console(), [f"wrote {path}" for path in written])
    elif not quiet:
        console = results_console()
        console.print(comparison_table(runs))
        show_lines(console, [f"wrote {path}" for path in written])
