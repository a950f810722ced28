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
from corank.cli.outputs import check_distinct, check_file, check_report, write_all
from corank.cli.progress import progress_bar
from corank.cli.record import Scores, float_record, score
from corank.cli.screen import results_console, show_lines
from corank.cli.sources import InputOptions, chosen_device, warn_if_random
from corank.errors import ConfigError
from corank.models import ResolvedModel, resolve
from corank.processes import is_main
from corank.pruning.record import PruneRecord, pruned_of
from corank.pruning.request import Share, chosen_method
from corank.reports import write_record, write_report
from corank.reports.cells import show_bytes
from corank.storage.contents import float_bytes
from corank.training.recipe import LOSSES
from corank.verbs.prune import FINETUNE

__all__ = ["prune"]

_MOST_LEFT = 8


def prune(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: shared.Out,
    remove: asked.Remove,
    method: asked.Method = "perspective",
    iterations: asked.Iterations = 400,
    drawn: asked.Drawn = 0.25,
    batch_size: asked.BatchSize = 128,
    loss: asked.Loss = "distil",
    keep: asked.Keep = None,
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    evaluation: shared.Evaluation = None,
    samples: asked.Samples = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_key: options.ImageKey = None,
    label_key: options.LabelKey = None,
    length: options.Length = None,
    label: options.LabelPattern = None,
    checkpoint: shared.Checkpoint = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    record: options.RecordFile = None,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Remove whole channels and heads, and train what is left against the whole network; no labels needed."""
    check_distinct((out, record, report), (weights, model, data, evaluation))
    check_file(out, "--out", ".safetensors")
    check_file(record, "--record", ".json")
    check_report(report)
    share, how = Share.read(remove), chosen_method(method)  # before anything is read
    if loss not in LOSSES:
        raise ConfigError(f"--loss {loss}: one of {', '.join(LOSSES)}; only distil needs no labels")
    source = resolve(model, pretrained=pretrained, weights=weights, seed=seed)
    warn_if_random(source)
    view = InputOptions(image_size, mean, std, image_key, label_key, length, label)
    images, *scored = view.read(source, data, *([evaluation] if evaluation else []))
    where = chosen_device(device)
    source.model.to(where)
    with progress_bar(quiet) as progress:
        small = corank.prune(
            source.model, images, str(share), how, iterations=iterations, drawn=drawn, batch_size=batch_size,
            keep=keep or (), recipe=FINETUNE.replaced(loss=loss), samples=samples, seed=seed, device=where,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        scores = score(source.model, small, scored[0], progress) if scored else Scores()
    if not is_main():  # of several processes one writes and speaks
        return
    result = _record(command_line(context), source, small, scores)
    written = write_all(
        (out, lambda path: corank.save(small, path)),
        (record, lambda path: write_record(path, result)),
        (report, lambda path: write_report(path, [result], f"{result['model']}, {result['label']}")),
    )
    if not quiet:
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
