"""`corank inspect`: what a quantized file holds."""

from __future__ import annotations

from collections import Counter
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
from corank.cli.adapter import adapter_facts
from corank.cli.invocation import command_line
from corank.cli.outputs import check_distinct, check_file, write_all
from corank.cli.record import Made, Scores, record_of
from corank.cli.screen import facts_table, results_console, show_json, show_lines, show_skipped
from corank.reports import layer_table, write_record
from corank.reports.cells import show_bits, show_bytes
from corank.reports.fields import file_bits, layer_name
from corank.storage.adapter_file import is_adapter, read_adapter

__all__ = ["inspect"]


def inspect(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Written by corank quantize, train or adapt.")],
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer.")] = False,
    as_json: options.AsJson = False,
    record: options.RecordFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Check a quantized file (format, SHA-256) and say what it holds; no model is built."""
    check_distinct((record,), (file,))
    check_file(record, "--record", ".json")
    if is_adapter(file):
        _show_adapter(file, record, as_json, quiet)
        return
    about = corank.inspect(file, codes=layers or as_json or record is not None)
    result = record_of(Made("inspect", command_line(context)), about, Scores(), None)
    written = write_all((record, lambda path: write_record(path, result)))
    if as_json:
        show_json(result)
    elif not quiet:
        _show(results_console(), result, layers)
        show_lines(results_console(), [f"wrote {path}" for path in written])


def _show_adapter(file: Path, record: Path | None, as_json: bool, quiet: bool) -> None:
    """The same of a task's adapter."""
    result = {"adapter": read_adapter(file).about(), "adapter_bytes": file.stat().st_size}
    written = write_all((record, lambda path: write_record(path, result)))
    if as_json:
        show_json(result)
    elif not quiet:
        results_console().print(facts_table(adapter_facts(result["adapter"], result["adapter_bytes"])))
        show_lines(results_console(), [f"wrote {path}" for path in written])


def _show(console: Console, result: Mapping[str, Any], layers: bool) -> None:
    coded = result["layers"]
    budget, bits, coded_bits = result["budget"], result["bits"], _coded(result)
    facts = {
        "model": result["model"],
        "made by": ", ".join(filter(None, (result["preset"], result["search"]))),
        "bits": None
        if bits is None
        else show_bits(bits, result["activations"]) + (f" + {budget:.4g}" if budget else ""),
        f"bits per weight, {'before coding' if coded_bits else 'all counted'}": f"{result['equivalent_bits']:.3f}",
        "as the file codes them": coded_bits,
        "file": f"{show_bytes(result['stored_bytes'])}, SHA-256 sound",
        "layers": f"{len(coded)} quantized, {len(result['skipped'])} left in float",
        "in float": _in_float(result["float_tensors"], result["stored_parts"]["other tensors"]),
        "adapters": f"{sum(layer['rank'] > 0 for layer in coded)} of {len(coded)} layers, "
        f"ranks {sum(layer['rank'] for layer in coded)} in all",
        "seed": result["seed"],
        "gradient steps": result["iterations"],
        "recipe": _recipe(result["recipe"]),
    }
    console.print(facts_table({name: str(value) for name, value in facts.items() if value not in (None, "")}))
    if layers:
        console.print(layer_table(result))
        console.print(_coding_table(coded))
    show_skipped(console, result["skipped"])


def _in_float(tensors: Sequence[Mapping[str, Any]], stored: int) -> str:
    """Bytes of what is no code, before and after they are coded, and the largest of it."""
    size = sum(one["bytes"] for one in tensors)
    total = show_bytes(size) + (f", {show_bytes(stored)} in the file" if stored < size else "")
    if not tensors:
        return total
    largest = tensors[0]
    return f"{total}; the largest {largest['name'][:60]!r} ({show_bytes(largest['bytes'])}: {largest['reason'][:80]})"


def _recipe(told: Mapping[str, Any] | None) -> str | None:
    """A training's recipe in a line; what this version cannot read of one is said, and stops nothing."""
    if told is None:
        return None
    try:
        return corank.Recipe.from_json(told).in_words()
    except corank.ConfigError as error:
        return f"cannot be read by this version: {error}"


def _coded(result: Mapping[str, Any]) -> str | None:
    """Bits per weight in the file, by what, and what it saves; None where all codes are of fixed width."""
    saved = 1 - result["stored_bytes"] / result["fixed_bytes"]
    names = Counter(layer["coder"] for layer in result["layers"] if layer["coder"] != "fixed")
    if not saved and not names:
        return None
    by = ", ".join(f"{name} ({count} layers)" for name, count in names.most_common())
    return f"{file_bits(result) or 0:.3f}, {100 * saved:.1f} % of the file saved, by {by or 'coded adapters'}"


def _coding_table(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Each layer's coder, its bits per weight before and after coding, and the entropy of its codes."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(("layer", "coder", "bits per weight", "in the file", "entropy as coded")):
        table.add_column(heading, justify="left" if number < 2 else "right", overflow="fold")
    for layer in layers:
        sizes = (layer["bits_per_weight"], layer["file_bits_per_weight"], layer["relative_entropy"])
        table.add_row(Text(layer_name(layer)), layer["coder"], *(f"{size:.3f}" for size in sizes))
    return table
