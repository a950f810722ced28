"""How a command ends when something is wrong: one message, an exit code, never a traceback."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.text import Text

from corank.cli.grouped import flat
from corank.cli.invocation import debugging
from corank.cli.screen import Unread, errors_console
from corank.errors import CorankError, CorankWarning, OutputError
from corank.reports.fields import clean

__all__ = ["FAILED", "INTERRUPTED", "UNREAD", "USAGE", "Interrupted", "reported", "warn"]

USAGE, FAILED, INTERRUPTED, UNREAD = 2, 1, 130, 141
LONGEST = 4000


class Interrupted(Exception):
    """Ctrl-C while files were being written.

    Args:
        written: the paths that were complete by then.
    """

    def __init__(self, written: list[str]) -> None:
        super().__init__(", ".join(written))
        self.written = written


def reported(command: Callable[..., None], failed: int = FAILED) -> Callable[..., None]:
    """A command whose groups of options are flat, and whose errors become a message on stderr and an exit code.

    2 for what the caller can mend (arguments, model, data, budget, artifact), ``failed`` for anything else, 130 for
    Ctrl-C, 141 where nobody reads standard output any more (as a shell says of a program that such a pipe ended).
    """

    taken = flat(command)

    @functools.wraps(taken)
    def run(context: typer.Context, **options: Any) -> None:
        try:
            with _own_warnings():
                taken(context=context, **options)
        except (KeyboardInterrupt, Interrupted) as error:
            written = error.written if isinstance(error, Interrupted) else []
            _say(f"interrupted; {'written: ' + ', '.join(written) if written else 'nothing was written'}")
            raise typer.Exit(INTERRUPTED) from None
        except Unread:
            _discard_output()
            raise typer.Exit(UNREAD) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if debugging(context):
                raise
            _say(_message(error), "error: ")
            raise typer.Exit(_code(error, failed)) from None

    return run


def warn(message: str) -> None:
    """Says on stderr what the caller should know although the command goes on."""
    console = errors_console()
    console.print(Text("warning: ", style="bold yellow") + Text(clean(message, LONGEST)), soft_wrap=True)


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Warnings of the library as this command's own, each time; those of others as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, CorankWarning):
                warn(str(message))
            else:
                show(message, category, *where, **more)

        warnings.simplefilter("always", CorankWarning)
        warnings.showwarning = shown
        yield


def _discard_output() -> None:
    """Standard output goes nowhere from here on; else the interpreter complains, on its way out, that it cannot."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _say(message: str, lead: str = "") -> None:
    errors_console().print(Text(lead, style="bold red") + Text(clean(message, LONGEST)), soft_wrap=True)


def _message(error: Exception) -> str:
    notes = error.__dict__.get("__notes__", [])
    said = "; ".join([str(error) or type(error).__name__, *map(str, notes)])
    if isinstance(error, CorankError):
        return said
    if isinstance(error, OSError) and error.filename is None:
        return f"cannot write the output: {error.strerror or said}"
    return f"{type(error).__name__}: {said} (not expected; --debug shows where)"


def _code(error: Exception, failed: int) -> int:
    return USAGE if isinstance(error, CorankError) and not isinstance(error, OutputError) else failed
