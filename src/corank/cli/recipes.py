"""`corank recipes`: which ways of training there are."""

from __future__ import annotations

from typing import Annotated

import typer

import corank.cli.options as options
from corank.cli.completion import names
from corank.cli.screen import results_console, show_json, show_lines
from corank.training.methods import Method, methods
from corank.training.recipes import RECIPES, chosen_recipe
from corank.training.recipes.rate import rate

__all__ = ["recipes"]

_HOW = (
    "\na recipe is METHOD-Nbit, or METHOD-wNaM with inputs of M bits: stats-2bit, lsq-w4a4; methods without bits go by "
    "their name, and rate takes --rate 0.5 or --size 20KB; corank recipes NAME prints one"
)


def recipes(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="METHOD-Nbit or METHOD-wNaM: print its JSON, for --recipe FILE.",
            autocompletion=names(f"{name}-2bit" for name in RECIPES),
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the ways of training, one line each, or print one recipe as JSON."""
    found = methods()
    if name is not None:
        show_json((rate(0.5) if name == "rate" else chosen_recipe(name)).to_json())
    elif as_json:
        show_json({"methods": [vars(method) for method in found]})
    else:
        show_lines(results_console(), [*map(_line, found), _HOW])


def _line(method: Method) -> str:
    inputs = {"either": "inputs float or low", "float": "inputs float", "low bits": "inputs low"}[method.inputs]
    bits = _span(method.bits) or ("any" if method.name == "rate" else "float")
    return f"{method.name:<13} {bits:<5} {inputs:<20} {method.status:<15} {method.paper}"


def _span(bits: tuple[int, ...]) -> str:
    if len(bits) > 1 and bits == tuple(range(bits[0], bits[-1] + 1)):
        return f"{bits[0]}-{bits[-1]}"
    return ",".join(map(str, bits))
