"""`corank quantize`: a trained network and images in, a small file out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import corank
import corank.cli.options as options
from corank.cli.invocation import command_line
from corank.cli.outputs import check_distinct, check_file, check_report, write_all
from corank.cli.progress import progress_bar
from corank.cli.record import Scores, record_of, score
from corank.cli.request import Request
from corank.cli.screen import results_console, show_lines, show_skipped, summary_table
from corank.cli.sources import InputOptions, chosen_device, warn_if_random
from corank.models import resolve
from corank.reports import write_record, write_report
from corank.reports.files import write_file

__all__ = ["quantize"]

HOW = "How small"
PLAN = "Plan"


def quantize(
    context: typer.Context,
    model: options.Model,
    data: options.Data,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The .safetensors file.", rich_help_panel=options.OUTPUT)
    ],
    bits: Annotated[
        int | None, typer.Option(help="Of a code, 1 to 8; 4 unless --size is given.", rich_help_panel=HOW)
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Extra bits per weight for the adapters; 0.25.", rich_help_panel=HOW)
    ] = None,
    size: Annotated[str | None, typer.Option(help="Of the file, such as 1.2MB.", rich_help_panel=HOW)] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Find the smallest file within so many points.", rich_help_panel=HOW)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="fast (if not given), paper or nearest.", rich_help_panel=PLAN)
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="cora, cora-from-0.9, greedy or uniform.", rich_help_panel=PLAN)
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Carry out this plan; search nothing.", rich_help_panel=PLAN)
    ] = None,
    save_plan: Annotated[
        Path | None, typer.Option(help="Write the plan as JSON.", rich_help_panel=options.OUTPUT)
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=BITS", help="Bits or float for some layers; repeat it.", rich_help_panel=PLAN
        ),
    ] = None,
    all_layers: Annotated[
        bool,
        typer.Option("--all-layers", help="No 8 bits for the first and last layer.", rich_help_panel=PLAN),
    ] = False,
    adapter_bits: Annotated[
        int | None, typer.Option(help="Of the adapters, 2 to 8; 8.", rich_help_panel=PLAN)
    ] = None,
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    evaluation: Annotated[
        str | None,
        typer.Option("--eval", help="Images to score on, as --data.", rich_help_panel=options.INPUT),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Calibration images, at most.", rich_help_panel=options.INPUT)
    ] = 1600,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_key: options.ImageKey = None,
    label_key: options.LabelKey = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    record: options.RecordFile = None,
    report: options.ReportFolder = None,
    quiet: options.Quiet = False,
) -> None:
    """Quantize a trained network; no training, no labels (but for --eval)."""
    for path in (out, save_plan, record):
        check_file(path)
    check_report(report)
    check_distinct((out, save_plan, record, report), (weights, plan))
    request = Request(
        bits, budget, size, max_drop, preset, search, plan, tuple(layer or ()), all_layers, adapter_bits,
        samples, seed, model, chosen_device(device),
    )  # fmt: skip
    request.check(scored=evaluation is not None)
    source = resolve(model, pretrained=pretrained, weights=weights, seed=seed)
    warn_if_random(source)
    view = InputOptions(image_size, mean, std, image_key, label_key)
    images, *scored = view.load(source.preprocessing, data, *([evaluation] if evaluation else []))
    source.model.to(request.device)
    with progress_bar(quiet) as progress:
        quantized = request(source.model, images, scored[0] if scored else None, progress)
        scores = score(source.model, quantized, scored[0], progress) if scored else Scores()
    about = corank.inspect(quantized)
    result = record_of("quantize", about, scores, source, command_line(context))
    plan_text = json.dumps(about["plan"], indent=1) + "\n"
    written = write_all(
        (out, lambda path: corank.save(quantized, path)),
        (save_plan, lambda path: write_file(path, plan_text.encode())),
        (record, lambda path: write_record(path, result)),
        (report, lambda path: write_report(path, [result], f"{model}, {result['label']}")),
    )
    if not quiet:
        _show(result, written)


def _show(result: Mapping[str, Any], written: Sequence[Path]) -> None:
    console = results_console()
    table = summary_table(result)
    console.print(table)
    show_skipped(console, result["skipped"])
    show_lines(console, [f"wrote {path}" for path in written])
