"""The options that `corank train` has beside those of `corank quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corank.cli.completion import names
from corank.cli.options import INPUT, OUTPUT
from corank.training.recipe import LOSSES
from corank.training.recipes import RECIPES

__all__ = [
    "HOW",
    "BatchSize",
    "Iterations",
    "Loss",
    "Parts",
    "Rate",
    "RecipeName",
    "Recompute",
    "Samples",
    "SaveRecipe",
    "Size",
    "Teacher",
    "TeacherWeights",
    "Workers",
]

HOW = "How it trains"

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="METHOD-Nbit or METHOD-wNaM (corank recipes lists the methods), a recipe's .json, or the .safetensors of "
        "a trained network; stats-2bit, with --rate or --size rate.",
        rich_help_panel=HOW,
        autocompletion=names([*(f"{name}-2bit" for name in RECIPES), "rate"]),
    ),
]
Iterations = Annotated[int | None, typer.Option(help="Steps; the recipe's (400).", rich_help_panel=HOW)]
BatchSize = Annotated[int | None, typer.Option(help="Samples a step; the recipe's (128).", rich_help_panel=HOW)]
Loss = Annotated[
    str | None,
    typer.Option(
        help="distil (from the float network, no labels), labels or both; the recipe's.",
        rich_help_panel=HOW,
        autocompletion=names(LOSSES),
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Another trained network to distil from, with its published weights, or --teacher-weights.",
        rich_help_panel=HOW,
    ),
]
TeacherWeights = Annotated[
    str | None, typer.Option(metavar="FILE", help="The teacher's weights file or folder.", rich_help_panel=HOW)
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        "--bits-per-weight",
        help="Bits a weight after entropy coding, met by training, such as 0.5.",
        rich_help_panel=HOW,
    ),
]
Size = Annotated[str | None, typer.Option(help="Of the file, such as 20KB, met by training.", rich_help_panel=HOW)]
Parts = Annotated[
    int,
    typer.Option(help="Samples of a step that pass at once, where memory is short; 0 for all.", rich_help_panel=HOW),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that read the batches of steps to come; 0 for none.", rich_help_panel=HOW),
]
Recompute = Annotated[
    bool,
    typer.Option(
        "--recompute",
        help="Hold less of a step, and compute blocks again for the backward pass: for large networks.",
        rich_help_panel=HOW,
    ),
]
SaveRecipe = Annotated[
    Path | None, typer.Option(help="Write the recipe that was carried out as JSON.", rich_help_panel=OUTPUT)
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Samples that the start is coded from, and norms are estimated on, at most: 1600 images, or sequences of "
        "102,400 tokens.",
        rich_help_panel=INPUT,
    ),
]
