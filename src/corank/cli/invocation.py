"""The command line as it was typed, known to every command through its context."""

from __future__ import annotations

import shlex
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["CommandGroup", "command_line", "debugging"]

DEBUG = "--debug"
TYPED, DEBUGGING = "corank.typed", "corank.debugging"


class CommandGroup(TyperGroup):
    """Remembers what was typed and takes out the hidden `--debug`, wherever it stands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = shlex.join(["corank", *args])
        ctx.meta[DEBUGGING] = DEBUG in args
        return super().parse_args(ctx, [word for word in args if word != DEBUG])


def command_line(context: typer.Context) -> str:
    """What was typed, quoted for a shell."""
    return context.meta[TYPED]


def debugging(context: typer.Context) -> bool:
    """Whether errors should show their traceback."""
    return context.meta[DEBUGGING]
