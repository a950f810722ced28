"""The options that `corank prune` has of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from corank.cli.completion import names
from corank.cli.options import INPUT
from corank.pruning.request import METHODS

__all__ = ["BatchSize", "Drawn", "Iterations", "Keep", "Loss", "Method", "Remove", "Samples"]

HOW = "What goes, and how the rest heals"

Remove = Annotated[
    str,
    typer.Option(
        metavar="SHARE", help="Of the multiply-adds, such as 0.4; 0.4p of the parameters.", rich_help_panel=HOW
    ),
]
Method = Annotated[
    str,
    typer.Option(
        help=f"How channels are weighed: {', '.join(METHODS)}.", rich_help_panel=HOW, autocompletion=names(METHODS)
    ),
]
Iterations = Annotated[int, typer.Option(help="Steps of training in all; 0 for none.", rich_help_panel=HOW)]
Drawn = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Of the steps, those that draw channels to zero before they go.", rich_help_panel=HOW
    ),
]
BatchSize = Annotated[int, typer.Option(help="Samples a step.", rich_help_panel=HOW)]
Loss = Annotated[
    str,
    typer.Option(
        help="distil (from the whole network, no labels), labels or both.",
        rich_help_panel=HOW,
        autocompletion=names(("distil", "labels", "both")),
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Layers that keep their channels; repeat it.", rich_help_panel=HOW),
]
Samples = Annotated[
    int | None,
    typer.Option(help="Samples that channels are weighed and norms estimated on (1600).", rich_help_panel=INPUT),
]
