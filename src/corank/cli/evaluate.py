"""`corank evaluate`: what a quantized file scores, and how closely it follows the float model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import corank
import corank.cli.options as options
from corank.attacks import Attack
from corank.cli.adapter import AdapterFile, in_two_files, loaded
from corank.cli.invocation import command_line
from corank.cli.outputs import check_distinct, check_file, write_all
from corank.cli.progress import progress_bar, renamed
from corank.cli.record import Made, Scores, record_of, score, speeds
from corank.cli.screen import results_console, show_json, show_lines, summary_table
from corank.cli.sources import InputOptions, ModelOptions, chosen_device, warn_if_random
from corank.models import resolve
from corank.reports import write_record

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize.")],
    model: options.ModelOption,
    data: options.Data,
    network: ModelOptions,
    view: InputOptions,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Also compare with the float model.", rich_help_panel=options.MODEL),
    ] = False,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:NUMBERS",
            help="Also score images changed so that the network errs: fgsm:2/255 or pgd:2/255,10; repeat it.",
        ),
    ] = None,
    adapter: AdapterFile = None,
    packed: options.Packed = False,
    speed: options.Speed = False,
    device: options.Device = "auto",
    record: options.RecordFile = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a quantized file.

    MODEL gives the network's code; what the file says of its origin is never run. The weights come from the
    file: --weights and --pretrained only matter with --reference.
    """
    check_distinct((record,), (file, adapter, network.weights, model, data))
    check_file(record, "--record", ".json")
    attacks = [Attack.of(one) for one in attack or ()]
    where = chosen_device(device)
    seed = corank.inspect(file)["seed"]
    source = resolve(model, pretrained=network.pretrained, weights=network.weights, seed=seed)
    (images,) = view.read(source, data)
    quantized = loaded(file, source, where, adapter, packed)
    if reference:
        warn_if_random(source)
        source.model.to(where)
    with progress_bar(quiet) as progress:
        if reference:
            scores = score(source.model, quantized, images, progress, attacks)
        else:
            found = corank.evaluate(quantized, images, attacks=attacks, progress=renamed(progress, "scoring"))
            scores = Scores.of(found)
    about = corank.inspect(file if adapter is None or packed else quantized)
    if adapter is not None:
        about = in_two_files(about, file, adapter)
    result = record_of(Made("evaluate", command_line(context)), about, scores, source)
    if speed:
        result["speed"] = speeds(quantized, source.model if reference else None, images)
    written = write_all((record, lambda path: write_record(path, result)))
    if as_json:
        show_json(result)
    elif not quiet:
        console = results_console()
        console.print(summary_table(result))
        show_lines(console, [f"wrote {path}" for path in written])
