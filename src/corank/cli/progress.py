"""A progress bar with the time left, on a terminal's stderr only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from corank.cli.screen import errors_console
from corank.progress import Progress, silent

__all__ = ["progress_bar", "renamed", "study_bar"]


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """Gives the callback ``(what, done, total)`` that the library takes, silent where nobody would see it."""
    with _bar(quiet) as bar:
        yield silent if bar is None else _callback(bar)


@contextmanager
def study_bar(quiet: bool) -> Iterator[Progress]:
    """The same for work whose name tells how far it got: one line throughout, so that the time left is that of all."""
    with _bar(quiet) as bar:
        if bar is None:
            yield silent
            return
        line = bar.add_task("tuning", total=None)
        yield lambda what, done, total: bar.update(line, description=what, completed=done, total=total)


def renamed(progress: Progress, name: str) -> Progress:
    """The same callback, with the name of what is being done given by the caller."""
    return lambda _what, done, total: progress(name, done, total)


@contextmanager
def _bar(quiet: bool) -> Iterator[rich.progress.Progress | None]:
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
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        yield bar


def _callback(bar: rich.progress.Progress) -> Progress:
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
