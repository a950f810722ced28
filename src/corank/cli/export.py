"""`corank export`: a quantized file for another runtime, checked by running it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import corank
import corank.cli.options as options
from corank.cli.outputs import check_distinct, check_file
from corank.cli.screen import facts_table, results_console, show_lines
from corank.cli.sources import InputOptions
from corank.data import ImageSet, Preprocessing
from corank.errors import ConfigError, OutputError
from corank.export import TARGETS, ExportRequest, ExportResult, Target
from corank.models import resolve
from corank.reports.cells import show_bytes

__all__ = ["export"]

LARGEST_INPUT = 1 << 28  # numbers


def export(
    context: typer.Context,
    model: options.Model,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize.")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help=", ".join(TARGETS))],
    out: Annotated[Path, typer.Option("--out", help="What to write.", rich_help_panel=options.OUTPUT)],
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="1x3x32x32",
            help="Shape of the input to try the file with; from --data or the model if not given.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Images to try the file with, and to calibrate targets that need it: as for corank quantize.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    image_key: options.ImageKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a quantized file for another runtime, run it there and compare with PyTorch.

    MODEL gives the network's code; what the file says of its origin is never run.
    """
    target = _target(to)
    _check_out(out, target)
    check_distinct((out,), (file, model, data))
    seed = corank.inspect(file)["seed"]
    source = resolve(model, seed=seed)
    images = None
    if data is not None:
        (images,) = InputOptions(image_size, mean, std, image_key).load(source.preprocessing, data)
    elif target.needs_images:
        raise ConfigError(f"--to {to} measures activations: give --data with some hundred images")
    example = _example(shape, images, source.preprocessing, image_size)
    quantized = corank.load(file, source.model)
    result = target.export(ExportRequest(quantized, out, example, images))
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=2))
    elif not quiet:
        _show(result)


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise ConfigError(f"--to {name}: give one of {', '.join(TARGETS)}")
    return TARGETS[name]


def _check_out(out: Path, target: Target) -> None:
    if not target.folder:
        check_file(out)
    elif out.exists() and not out.is_dir():
        raise OutputError(f"cannot write {out}: this target writes a folder, and a file stands there")


def _example(shape: str | None, images: ImageSet | None, own: Preprocessing, image_size: int | None) -> Any:
    if shape is not None:
        return torch.randn(_numbers(shape), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    if images is not None:
        return next(iter(images.batches(1)))[0]
    side = image_size or own.image_size
    if side is None:
        raise ConfigError("the size of the model's input is not known: give --input, e.g. --input 1x3x224x224")
    return torch.randn((1, own.channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.float32)


def _numbers(shape: str) -> list[int]:
    try:
        sizes = [int(part) for part in shape.split("x")]
    except ValueError:
        sizes = []
    total = 1
    for size in sizes:
        total *= size
    if len(sizes) < 2 or min(sizes) < 1 or total > LARGEST_INPUT:
        raise ConfigError(f"--input {shape}: give sizes with an x between, batch first, e.g. --input 1x3x224x224")
    return sizes


def _show(result: ExportResult) -> None:
    facts: dict[str, Any] = {
        "size": show_bytes(result.size_bytes),
        "artifact": result.artifact_bytes and show_bytes(result.artifact_bytes),
        "float, same format": result.float_bytes and show_bytes(result.float_bytes),
        "largest difference to PyTorch": _of(result.max_difference, "{:.3g}"),
        "over the largest output": _of(result.relative_difference, "{:.3g}"),
        "same class as PyTorch": _of(result.agreement, "{:.1f} % of the calibration samples"),
        "median of a run": _of(result.latency_ms, "{:.2f} ms"),
        "session options": ", ".join(f"{name}={value}" for name, value in result.options.items()) or None,
    }
    console = results_console()
    console.print(facts_table({name: str(value) for name, value in facts.items() if value is not None}))
    show_lines(console, [*result.notes, *(f"wrote {path}" for path in result.files)])


def _of(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
