"""`corank prune`: a trained network and samples in, a float network with fewer channels out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

import corank
import corank.cli.options as options
import corank.cli.prune_options as asked
import corank.cli.quantize_options as shared
from corank.cli.invocation import command_line
from corank.cli.outputs import Told, check_distinct, check_file, write_all
from corank.cli.progress import progress_bar
from corank.cli.record import Scores, float_record, score
from corank.cli.screen import results_console, show_lines
from corank.cli.sources import InputOptions, ModelOptions, Work
from corank.models import ResolvedModel
from corank.processes import is_main
from corank.pruning.record import PruneRecord, pruned_of
from corank.reports import write_record, write_report
from corank.reports.cells import show_bytes
from corank.storage.contents import float_bytes

__all__ = ["prune"]

_MOST_LEFT = 8


def prune(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: shared.Out,
    request: asked.PruneOptions,
    network: ModelOptions,
    view: InputOptions,
    work: Work,
    told: Told,
    evaluation: shared.Evaluation = None,
    checkpoint: shared.Checkpoint = None,
) -> None:
    """Remove whole channels and heads, and train what is left against the whole network; no labels needed."""
    check_distinct((out, told.record, told.report), (network.weights, model, data, evaluation))
    check_file(out, "--out", ".safetensors")
    told.checked()
    settings = request.checked()  # before anything is read
    source = network.resolve(model, work.seed)
    images, *scored = view.read(source, data, *([evaluation] if evaluation else []))
    with progress_bar(told.quiet) as progress:
        small = corank.prune(
            source.model.to(work.place), images, **settings, seed=work.seed, device=work.place, checkpoint=checkpoint,
            progress=progress,
        )  # fmt: skip
        scores = score(source.model, small, scored[0], progress) if scored else Scores()
    if not is_main():  # of several processes one writes and speaks
        return
    result = _record(command_line(context), source, small, scores)
    written = write_all(
        (out, lambda path: corank.save(small, path)),
        (told.record, lambda path: write_record(path, result)),
        (told.report, lambda path: write_report(path, [result], f"{result['model']}, {result['label']}")),
    )
    if not told.quiet:
        _show(result, pruned_of(small), written)


def _record(reproduce: str, source: ResolvedModel, small: nn.Module, scores: Scores) -> dict[str, Any]:
    """The record of a pruning: that of a float network, and what went."""
    found = pruned_of(small)
    whole = float_record("prune", scores.quantized_value or 0.0, source, found.seed, reproduce)
    note = "what is left is in float: corank quantize MODEL --weights FILE makes it smaller still"
    return {
        **whole, "label": f"{found.method} {found.remove}", "float_value": scores.float_value,
        "quantized_value": scores.quantized_value, "agreement": scores.agreement, "kl": scores.kl,
        "metric": scores.metric, "eval_samples": scores.samples, "stored_bytes": float_bytes(small),
        "iterations": found.iterations, "seconds": found.seconds, "pruned": found.to_json(), "notes": [note],
    }  # fmt: skip


def _show(result: Mapping[str, Any], found: PruneRecord, written: list[Path]) -> None:
    """The whole network beside what is left, what stays and why, and where it went."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("whole", "pruned"):
        table.add_column(name, justify="right")
    table.add_row("multiply-adds", *(f"{one:,}" for one in found.multiply_adds))
    table.add_row("parameters", *(f"{one:,}" for one in found.parameters))
    table.add_row("in float", *(show_bytes(result[name]) for name in ("float_bytes", "stored_bytes")))
    if result["quantized_value"] is not None and result["float_value"] is not None:
        table.add_row(result["metric"], *(f"{result[name]:.2f}" for name in ("float_value", "quantized_value")))
    if result["agreement"] is not None:
        table.add_row("agreement", "", f"{result['agreement']:.2f}")
    console = results_console()
    console.print(table)
    left = [f"  {name or '(model)'}: {why}" for name, why in list(found.left.items())[:_MOST_LEFT]]
    more = len(found.left) - _MOST_LEFT
    show_lines(
        console, [f"keep all channels ({len(found.left)}):", *left, *([f"  and {more} more"] if more > 0 else [])]
    )
    show_lines(console, [f"note: {text}" for text in result["notes"]])
    show_lines(console, [f"wrote {path}" for path in written])
