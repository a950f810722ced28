"""`corank analyse`: what a network does with changes, and what quantization did to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import corank
import corank.cli.options as options
from corank.cli.completion import names
from corank.cli.invocation import command_line
from corank.cli.outputs import Told, check_distinct, write_all
from corank.cli.progress import progress_bar
from corank.cli.screen import results_console, show_json, show_lines
from corank.cli.sources import InputOptions, ModelOptions, Work, own_dtype
from corank.evaluation import peak_memory_bytes
from corank.models import ResolvedModel
from corank.reports import write_record, write_report
from corank.reports.analyses import shown
from corank.verbs.analyse import ANALYSES, check_analysis

__all__ = ["analyse"]

MOST_SAID = 12


def analyse(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    told: Told,
    what: Annotated[
        str,
        typer.Option(
            metavar="QUESTION",
            help=f"{', '.join(ANALYSES)}.",
            autocompletion=names(list(ANALYSES)),
        ),
    ] = "lipschitz",
    quantized: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Written by corank quantize of this model.", rich_help_panel=options.MODEL),
    ] = None,
    bits: Annotated[int, typer.Option(help="Where no file is given: layers are rounded to nearest at this width.")] = 3,
    samples: Annotated[
        int | None,
        typer.Option(help="At most; 256, spectral 64, straight-through 32.", rich_help_panel=options.INPUT),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Look inside a network: which layers hurt, which frequencies count, what rounding does to gradients."""
    check_distinct((told.record, told.report), (network.weights, quantized, model, data))
    told.checked()
    check_analysis(what, bits)
    source = network.resolve(model, work.seed)
    (images,) = view.read(source, data)
    own = own_dtype(source.model)
    coded = None if quantized is None else corank.load(quantized, source.model, work.place, dtype=own)
    with progress_bar(told.quiet) as progress:
        found = corank.analyse(
            source.model, images, what, quantized=coded, bits=bits, samples=samples, seed=work.seed, device=work.place,
            progress=progress,
        )  # fmt: skip
    result = _record(found, source, quantized, command_line(context))
    written = write_all(
        (told.record, lambda path: write_record(path, result)),
        (told.report, lambda path: write_report(path, [result])),
    )
    if as_json:
        show_json(result)
    elif not told.quiet:
        _show(results_console(), result, written)


def _record(found: Mapping[str, Any], source: ResolvedModel, quantized: Path | None, reproduce: str) -> dict[str, Any]:
    """What the command writes."""
    return {
        "command": "analyse", "version": corank.__version__, "label": f"analyse {found['what']}",
        "model": source.reference, "seed": found["seed"], "seconds": found["seconds"], "analysis": found,
        "weights": source.weights, "weights_sha256": source.weights_sha256, "random_weights": source.random,
        "quantized": None if quantized is None else str(quantized), "peak_memory_bytes": peak_memory_bytes(),
        "reproduce": reproduce,
    }  # fmt: skip


def _show(console: Console, result: Mapping[str, Any], written: list[Path]) -> None:
    view = shown(result)
    for part in view.tables:
        table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), title=Text(part.title))
        for place, column in enumerate(part.columns):
            table.add_column(Text(column), justify="right" if place >= part.left else "left", overflow="fold")
        for row in part.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    show_lines(console, [view.verdict, *view.remarks])
    for said, why in view.without_theory[:MOST_SAID]:
        show_lines(console, [f"nothing said of {said}: {why}"])
    show_lines(console, [f"wrote {path}" for path in written])
