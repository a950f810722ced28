"""The typer application: which commands there are."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, TextIO

import typer

from corank import __version__
from corank.cli.adapt import adapt
from corank.cli.analyse import analyse
from corank.cli.compare import compare
from corank.cli.demo import demo
from corank.cli.diff import diff
from corank.cli.errors import INTERRUPTED, USAGE, reported
from corank.cli.evaluate import evaluate
from corank.cli.export import export
from corank.cli.import_peft import import_peft
from corank.cli.inspect import inspect
from corank.cli.invocation import CommandGroup
from corank.cli.pack import pack
from corank.cli.predict import predict
from corank.cli.prune import prune
from corank.cli.quantize import quantize
from corank.cli.recipes import recipes
from corank.cli.report import report
from corank.cli.supernet import SUPERNET_COMMANDS
from corank.cli.train import train
from corank.cli.tune import tune

__all__ = ["app", "main"]

app = typer.Typer(
    name="corank",
    cls=CommandGroup,
    help="Makes trained networks small, 4 bits to 1, without retraining.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"corank {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Makes trained networks small, 4 bits to 1, without retraining."""


COMMANDS = (
    quantize,
    train,
    adapt,
    tune,
    prune,
    recipes,
    evaluate,
    predict,
    inspect,
    analyse,
    compare,
    export,
    import_peft,
    pack,
    report,
    demo,
)
for command in COMMANDS:
    app.command()(reported(command))
supernet = typer.Typer(no_args_is_help=True, help="One network that holds many: train, search, take one out.")
for command in SUPERNET_COMMANDS:
    supernet.command()(reported(command))
app.add_typer(supernet, name="supernet")
app.command()(reported(diff, failed=USAGE))  # 1 says that the files differ


def main() -> None:
    """The entry point of the command `corank`."""
    sys.stdout, sys.stderr = _stream(sys.stdout), _stream(sys.stderr)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _stream(stream: TextIO | None) -> TextIO:
    """The same where a letter that the encoding lacks becomes a question mark; what was closed goes nowhere."""
    if stream is None:
        return open(os.devnull, "w")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream
