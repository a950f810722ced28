"""`corank import-peft`: adapters fine-tuned with peft, back into the small file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import corank
import corank.cli.options as options
import corank.export
from corank.cli.outputs import check_distinct, check_file, write_all
from corank.cli.screen import facts_table, results_console, show_lines
from corank.export import PeftImport
from corank.models import resolve
from corank.reports.cells import show_bytes
from corank.reports.fields import clean

__all__ = ["import_peft"]

COLUMNS = ("layer", "rank before", "rank", "adapter bits", "error of coding")


def import_peft(
    context: typer.Context,
    model: options.Model,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize; its adapters were exported.")],
    adapter: Annotated[Path, typer.Argument(metavar="FOLDER", help="Written by PeftModel.save_pretrained.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.", rich_help_panel=options.OUTPUT)],
    adapter_bits: Annotated[
        int | None, typer.Option(help="Width of the adapters' factors, 2 to 8; as in FILE if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Read adapters that peft has trained into a quantized file: its codes stay, its adapters are replaced.

    Export them with `corank export MODEL FILE --to peft --out FOLDER`, train, and give the folder that peft saved.
    MODEL gives the network's code; what the file says of its origin is never run.
    """
    check_distinct((out,), (file, model))
    check_file(out, "--out", ".safetensors")
    before = corank.inspect(file)
    source = resolve(model, seed=before["seed"])
    given = corank.export.import_peft(corank.load(file, source.model), adapter, adapter_bits=adapter_bits)
    written = write_all((out, lambda path: corank.save(given.model, path)))
    sizes = (before["stored_bytes"], out.stat().st_size)
    if as_json:
        layers = {name: asdict(layer) for name, layer in given.layers.items()}
        typer.echo(json.dumps({"bytes_before": sizes[0], "bytes": sizes[1], "layers": layers}, indent=2))
    elif not quiet:
        _show(given, sizes, written)


def _show(given: PeftImport, sizes: tuple[int, int], written: Sequence[Path]) -> None:
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 2, 0, 0))
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for name, layer in given.layers.items():
        cells = (
            str(layer.rank_before),
            str(layer.rank),
            str(layer.adapter_bits),
            f"{100 * layer.relative_error:.2f} %",
        )
        table.add_row(Text(clean(name)), *cells)
    console = results_console()
    console.print(table)
    console.print(facts_table({"file before": show_bytes(sizes[0]), "file": show_bytes(sizes[1])}))
    show_lines(console, [f"wrote {path}" for path in written])
