"""`corank diff`: what differs between two quantized files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import corank
import corank.cli.options as options
from corank.cli.screen import results_console, show_lines
from corank.reports.cells import NOTHING, show_bytes
from corank.reports.fields import clean

__all__ = ["diff"]

DIFFERENT = 1
MOST_LISTED = 12
FACTS = ("model", "preset", "search", "bits", "budget", "activations", "seed", "iterations")
COLUMNS = ("layer", "codec", "rank", "size", "output error", "codes differ", "weight change")


def diff(
    context: typer.Context,
    a: Annotated[Path, typer.Argument(metavar="A", help="Written by corank quantize.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    everything: Annotated[bool, typer.Option("--all", help="Also list the layers that are equal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON on stdout instead of tables.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two quantized files: bytes, layers, codes, tensors. No float model is needed.

    Ends with 0 if both hold the same network, 1 if they differ, 2 for an error.
    """
    found = corank.diff(a, b)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not quiet:
        _show(results_console(), found, everything)
    if not found["equal"]:
        raise typer.Exit(DIFFERENT)


def _show(console: Console, found: Mapping[str, Any], everything: bool) -> None:
    console.print(_facts(found["a"], found["b"]))
    layers = found["layers"]
    both = [layer for layer in layers if layer["a"] and layer["b"]]
    shown = [layer for layer in both if everything or not layer["equal"]]
    if shown:
        console.print(_table(COLUMNS, [_layer_cells(layer) for layer in shown]))
    equal = sum(layer["equal"] for layer in both)
    show_lines(console, [f"{equal} of {len(layers)} coded layers are equal"])
    for side, other in (("a", "b"), ("b", "a")):
        _list(console, f"coded in {side.upper()} only", [layer["name"] for layer in layers if not layer[other]])
        _list(console, f"norms folded in {side.upper()} only", found["folded"][side])
        _list(console, f"left in float in {side.upper()} only", found["skipped"][side])
    tensors = [f"{tensor['name']}: {_tensor_note(tensor)}" for tensor in found["tensors"]]
    _list(console, f"of {found['other_tensors']} other tensors differ", tensors, counted=True)
    show_lines(console, ["the networks are equal" if found["equal"] else "the networks differ"])


def _facts(a: Mapping[str, Any], b: Mapping[str, Any]) -> Table:
    rows = [(name, *(NOTHING if side[name] is None else str(side[name]) for side in (a, b))) for name in FACTS]
    rows = [row for row in rows if row[1] != row[2]]
    change = 100 * (b["stored_bytes"] / a["stored_bytes"] - 1)
    shown = f"{show_bytes(b['stored_bytes'])} ({change:+.1f} %)".replace("-", "−")
    rows.insert(0, ("file", show_bytes(a["stored_bytes"]), shown))
    rows.insert(1, ("bits per weight before coding", *(f"{side['equivalent_bits']:.3f}" for side in (a, b))))
    return _table(("", "A", "B"), rows)


def _layer_cells(layer: Mapping[str, Any]) -> tuple[str, ...]:
    a, b = layer["a"], layer["b"]
    return (
        layer["name"] or "(model)",
        _codec(a, b),
        _change(str(a["rank"]), str(b["rank"])),
        _change(show_bytes(a["bytes"]), show_bytes(b["bytes"])),
        _change(*(_error(side["relative_output_error"]) for side in (a, b))),
        _percent(layer["codes_differ"]),
        _percent(layer["weight_change"]),
    )


def _codec(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Kind and bits, and the settings that differ: "uniform 3 → 4, group default → 32"."""
    ours, theirs = a["codec"], b["codec"]
    if ours["kind"] != theirs["kind"]:
        return _change(f"{ours['kind']} {a['bits']}", f"{theirs['kind']} {b['bits']}")
    names = [name for name in {**ours, **theirs} if name not in ("kind", "bits") and ours.get(name) != theirs.get(name)]
    settings = [_change(*(str(side.get(name, "default")) for side in (ours, theirs))) for name in names]
    named = [f"{name} {setting}" for name, setting in zip(names, settings, strict=True)]
    return ", ".join([f"{ours['kind']} {_change(str(a['bits']), str(b['bits']))}", *named])


def _tensor_note(tensor: Mapping[str, Any]) -> str:
    a, b = tensor["a"], tensor["b"]
    if a is None or b is None:
        return f"in {'B' if a is None else 'A'} only"
    if a["shape"] != b["shape"]:
        return f"{a['shape']} in A, {b['shape']} in B"
    most = tensor["max_difference"]
    return "not finite in one of them" if most is None else f"at most {most:.3g} apart"


def _list(console: Console, what: str, names: Sequence[str], counted: bool = False) -> None:
    if not names:
        return
    more = [f"  and {len(names) - MOST_LISTED} more"] if len(names) > MOST_LISTED else []
    head = f"{len(names)} {what}:" if counted else f"{what} ({len(names)}):"
    show_lines(console, [head, *(f"  {name or '(model)'}" for name in names[:MOST_LISTED]), *more])


def _change(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _error(error: float) -> str:
    """Of a layer; not known of weights that trained from scratch."""
    return _percent(error if math.isfinite(error) else None)


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.3g} %"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if place < 1 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell).replace("\n", " ")) for cell in row))
    return table
