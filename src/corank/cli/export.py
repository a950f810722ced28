"""`corank export`: a quantized file for another runtime, checked by running it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import corank
import corank.cli.options as options
from corank import __version__
from corank.cli.invocation import command_line
from corank.cli.outputs import check_distinct, check_file, check_kind, write_all
from corank.cli.screen import facts_table, results_console, show_lines
from corank.cli.sources import InputOptions, own_dtype
from corank.data import BatchSet, ImageSet, TokenSet
from corank.errors import ConfigError, OutputError
from corank.export import TARGETS, ExportRequest, ExportResult, Target
from corank.models import ResolvedModel, resolve
from corank.reports import write_record
from corank.reports.cells import show_bytes

__all__ = ["export"]

LARGEST_INPUT = 1 << 28  # numbers
TOKENS = 32  # of the sequence that a language model is tried with
Past = Annotated[
    bool,
    typer.Option(
        "--past",
        help="Of a language model: keys and values of earlier tokens as inputs and outputs, to generate with.",
        rich_help_panel=options.OUTPUT,
    ),
]


def export(
    context: typer.Context,
    model: options.Model,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize.")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help=", ".join(TARGETS))],
    out: Annotated[Path, typer.Option("--out", help="What to write.", rich_help_panel=options.OUTPUT)],
    view: InputOptions,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="1x3x32x32",
            help="Shape of the input to try the file with (1x32 for tokens); from --data or the model if not given.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Samples to try the file with, and to calibrate targets that need it: as for corank quantize.",
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="Axes of the inputs left open: 0, the batch; 0,1 (for tokens, if not given) their length too; none.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    past: Past = False,
    record: options.RecordFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON on stdout.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a quantized file for another runtime, run it there and compare with PyTorch.

    MODEL gives the network's code; what the file says of its origin is never run.
    """
    target = _target(to, past)
    check_distinct((out, record), (file, model, data))
    _check_out(out, target)
    if data is None and target.needs_images:
        raise ConfigError(f"--to {to} measures activations: give --data with some hundred samples")
    check_file(record, "--record", ".json")
    source = resolve(model, seed=corank.inspect(file)["seed"])
    samples = None if data is None else view.read(source, data)[0]
    example = _example(shape, samples, source, view)
    quantized = corank.load(file, source.model, dtype=own_dtype(source.model))
    result = target.export(ExportRequest(quantized, out, example, samples, _axes(dynamic, example), past))
    about = {"command": "export", "version": __version__, "model": model, "reproduce": command_line(context)}
    made = about | result.to_json()
    written = write_all((record, lambda path: write_record(path, made)))
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    elif not quiet:
        _show(result, written)


def _target(name: str, past: bool) -> Target:
    if name not in TARGETS:
        raise ConfigError(f"--to {name}: give one of {', '.join(TARGETS)}")
    if past and not TARGETS[name].takes_past:
        able = ", ".join(known for known, one in TARGETS.items() if one.takes_past)
        raise ConfigError(f"--past goes with --to {able}; {name} has no inputs for keys and values")
    return TARGETS[name]


def _check_out(out: Path, target: Target) -> None:
    if not target.folder:
        check_file(out, "--out", target.suffix)
        return
    if not out.is_dir():
        check_kind("--out", out)
    if out.exists() and not out.is_dir():
        raise OutputError(f"cannot write {out}: this target writes a folder, and a file stands there")


def _axes(text: str | None, example: Any) -> tuple[int, ...]:
    """The axes asked for; else the batch, and of token ids, which have any length, that too."""
    if text is None:
        reads_ids = isinstance(example, Tensor) and example.dtype == torch.int64 and example.dim() == 2
        return (0, 1) if reads_ids else (0,)
    try:
        axes = () if text == "none" else tuple(int(part) for part in text.split(","))
    except ValueError:
        axes = (-1,)
    if any(axis < 0 for axis in axes):
        raise ConfigError(f"--dynamic {text}: axes from 0 with commas between, e.g. --dynamic 0,1, or none")
    return axes


def _example(
    shape: str | None, samples: ImageSet | TokenSet | BatchSet | None, source: ResolvedModel, view: InputOptions
) -> Any:
    """One sample: of that shape, of the data, or as the model says it reads them."""
    generator = torch.Generator().manual_seed(0)
    reading, reads_tokens = source.tokenization, source.tokenization is not None or view.length is not None
    if shape is None and isinstance(samples, ImageSet):
        return next(iter(samples.batches(1)))[0]
    if shape is None and isinstance(samples, TokenSet):
        return samples.ids[:1]
    if shape is None and isinstance(samples, BatchSet):
        return samples.first(1)
    if reads_tokens:
        vocabulary = (reading.vocabulary if reading is not None else None) or 2  # any has two
        longest = view.length or (reading.length if reading is not None else TOKENS)
        sizes = _numbers(shape, "1x32") if shape is not None else [1, min(longest, TOKENS)]
        return torch.randint(vocabulary, sizes, generator=generator)
    if shape is not None:
        return torch.randn(_numbers(shape, "1x3x224x224"), generator=generator, dtype=torch.float32)
    if source.sampling is not None:
        return torch.randn((1, source.sampling.samples), generator=generator, dtype=torch.float32) / 8
    side = view.image_size or source.preprocessing.image_size
    if side is None:
        raise ConfigError("the size of the model's input is not known: give --input, e.g. --input 1x3x224x224")
    return torch.randn((1, source.preprocessing.channels, side, side), generator=generator, dtype=torch.float32)


def _numbers(shape: str, example: str) -> list[int]:
    try:
        sizes = [int(part) for part in shape.split("x")]
    except ValueError:
        sizes = []
    total = 1
    for size in sizes:
        total *= size
    if len(sizes) < 2 or min(sizes) < 1 or total > LARGEST_INPUT:
        raise ConfigError(f"--input {shape}: give sizes with an x between, batch first, e.g. --input {example}")
    return sizes


def _show(result: ExportResult, written: list[Path]) -> None:
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
    show_lines(console, [*result.notes, *(f"wrote {path}" for path in (*result.files, *written))])


def _of(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)
