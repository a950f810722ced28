"""A progress bar with the time left, on a terminal's stderr only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from corank.cli.screen import errors_console

__all__ = ["Callback", "progress_bar", "renamed"]

Callback = Callable[[str, int, int], None]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callback | None]:
    """Gives the callback ``(what, done, total)`` that the library takes; None where nobody would see it."""
    console = errors_console()
    if quiet or not sys.stderr.isatty() or console.is_dumb_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _callback(bar)


def renamed(callback: Callback | None, name: str) -> Callback | None:
    """The same callback, with the name of what is being done given by the caller."""
    if callback is None:
        return None
    return lambda _what, done, total: callback(name, done, total)


def _callback(bar: Progress) -> Callback:
    tasks: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int) -> None:
        for name, task in list(tasks.items()):
            if name != what or bar.tasks[bar.task_ids.index(task)].completed > done:
                bar.remove_task(task)
                del tasks[name]
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    return show
