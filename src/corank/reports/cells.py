"""What a table's cells say: numbers and units, the same in the terminal, in Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from corank.reports.fields import Record, file_bits, is_rated, layer_name, number, numbers, run_label, text

__all__ = [
    "LAYER_COLUMNS",
    "NOTHING",
    "comparison_cells",
    "comparison_columns",
    "float_note",
    "headline_run",
    "is_nats",
    "layer_cells",
    "metric_name",
    "show_bits",
    "show_bytes",
    "show_drop",
    "show_loss",
    "show_percent",
    "show_ratio",
    "show_value",
    "unit_of",
]

NOTHING = "–"
# The one metric of which less is better; all others are shares in percent.
NATS = "nats per token"
NEAR_POINTS, NEAR_NATS = 1.0, 0.05
LAYER_COLUMNS = ("layer", "shape", "bits", "entropy", "rank", "size", "output error")


def show_percent(value: float | None, digits: int = 2) -> str:
    """A value in percent, such as "80.42 %"."""
    return NOTHING if value is None else f"{value:.{digits}f} %"


def show_bytes(size_bytes: float | None) -> str:
    """A size, where 1 KB is 1000 bytes: "812 B", "94.31 KB", "1.09 MB"."""
    if size_bytes is None:
        return NOTHING
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit, scale in (("KB", 1e3), ("MB", 1e6)):
        # Rounded first, so that 999,999 bytes are 1.00 MB and never 1000.00 KB.
        if round(size_bytes / scale, 2) < 1000:
            return f"{size_bytes / scale:.2f} {unit}"
    return f"{size_bytes / 1e9:.2f} GB"


def show_bits(bits: float | None, activations: float | None) -> str:
    """Bits of a weight's code, such as "4"; with quantized inputs "W4A8"."""
    if activations is None:
        return NOTHING if bits is None else f"{bits:g}"
    return ("W" + ("-" if bits is None else f"{bits:g}")) + f"A{activations:g}"


def show_ratio(run: Record) -> str:
    """How many times smaller the stored file is than the float weights, such as "11.6x"."""
    stored, original = number(run, "stored_bytes"), number(run, "float_bytes")
    return NOTHING if stored is None or original is None or stored <= 0 else f"{original / stored:.1f}x"


def is_nats(run: Record) -> bool:
    """Whether the run's values are nats per token, of which less is better, and not percent."""
    return run.get("metric") == NATS


def show_value(run: Record, key: str) -> str:
    """The value under `key`, in the unit of the run's metric: "80.42 %", "1.3044 nats"."""
    value = number(run, key)
    if not is_nats(run):
        return show_percent(value)
    return NOTHING if value is None else f"{value:.4f} nats"


def show_drop(run: Record) -> str:
    """Points, or nats per token, lost to the float model; what was gained has a minus sign."""
    drop = _drop(run)
    if drop is None:
        return NOTHING
    digits = 4 if is_nats(run) else 2
    return f"{round(drop, digits) + 0.0:.{digits}f}".replace("-", "−")


def show_loss(run: Record) -> str:
    """The drop in words: "0.75 points lost", "0.0012 nats gained"; empty where it is not known."""
    drop, unit = show_drop(run), "nats" if is_nats(run) else "points"
    if drop == NOTHING:
        return ""
    return f"{drop[1:]} {unit} gained" if drop.startswith("−") else f"{drop} {unit} lost"


def _drop(run: Record) -> float | None:
    """What was lost to the float model, in points or nats; None where it is not known."""
    original, quantized = number(run, "float_value"), number(run, "quantized_value")
    if original is None or quantized is None:
        return None
    return quantized - original if is_nats(run) else original - quantized


def unit_of(runs: Sequence[Record]) -> str:
    """What an axis of the runs' metric is called: "top-1 (%)", "nats per token"."""
    metric = metric_name(runs)
    return metric if metric == NATS else f"{metric} (%)"


def metric_name(runs: Sequence[Record]) -> str:
    """The metric that all runs share, such as "top-1"; "accuracy" where they differ or none is named."""
    names = {name for run in runs if (name := text(run, "metric", 40)) is not None}
    return names.pop() if len(names) == 1 else "accuracy"


def comparison_columns(runs: Sequence[Record]) -> tuple[str, ...]:
    """Headings of the comparison, in the order of `comparison_cells`."""
    return (
        "run",
        "bits",
        "bits per weight",
        metric_name(runs),
        "drop",
        "file",
        "ratio",
        "iterations",
        "seconds",
    )


def comparison_cells(run: Record) -> tuple[str, ...]:
    """One row of the comparison; bits per weight are those in the file, where that is known."""
    coded = file_bits(run)
    return (
        run_label(run),
        NOTHING if is_rated(run) else show_bits(number(run, "bits"), number(run, "activations")),
        _show(number(run, "equivalent_bits") if coded is None else coded, ".3f"),
        show_value(run, "quantized_value"),
        show_drop(run),
        show_bytes(number(run, "stored_bytes")),
        show_ratio(run),
        _show(number(run, "iterations"), ".0f"),
        _show(number(run, "seconds"), ".1f"),
    )


def layer_cells(layer: Record) -> tuple[str, ...]:
    """One row of the layers' table, in the order of `LAYER_COLUMNS`; the size is that in the file where it is known."""
    bits, rank, limit = number(layer, "bits"), number(layer, "rank"), number(layer, "max_rank")
    error, shape = number(layer, "relative_output_error"), numbers(layer, "shape")
    coded = number(layer, "file_bits_per_weight")
    takes = number(layer, "bytes") if coded is None or not shape else coded * math.prod(shape) / 8
    return (
        layer_name(layer),
        " × ".join(f"{size:.0f}" for size in shape) or NOTHING,
        "float" if bits is None else show_bits(bits, number(layer, "inputs")),
        _show(number(layer, "code_entropy"), ".2f"),
        _show(rank, ".0f") if rank is None or limit is None else f"{rank:.0f} of {limit:.0f}",
        show_bytes(takes),
        NOTHING if error is None else f"{100 * error:.3g} %",
    )


def float_note(runs: Sequence[Record]) -> str:
    """The float model that the runs are compared with; empty where it is unknown or the runs differ."""
    notes = {(show_value(run, "float_value"), show_bytes(number(run, "float_bytes"))) for run in runs}
    known = [note for note in notes.pop() if note != NOTHING] if len(notes) == 1 else []
    return f"float model: {', '.join(known)}" if known else ""


def headline_run(runs: Sequence[Record]) -> tuple[Record, str]:
    """The run to show first and why: the smallest within one point (0.05 nats) of float, else the most accurate."""
    if len(runs) == 1:
        return runs[0], ""
    drops = {place: drop for place, run in enumerate(runs) if (drop := _drop(run)) is not None}
    sizes = {place: size for place in drops if (size := number(runs[place], "stored_bytes")) is not None}
    near = [place for place in sizes if drops[place] <= (NEAR_NATS if is_nats(runs[place]) else NEAR_POINTS)]
    if near:
        smallest = min(near, key=sizes.__getitem__)
        return runs[smallest], f"the smallest within {'0.05 nats' if is_nats(runs[smallest]) else 'one point'} of float"
    rated = [run for run in runs if number(run, "quantized_value") is not None]
    if rated:
        best = min if any(map(is_nats, rated)) else max
        return best(rated, key=lambda run: number(run, "quantized_value") or 0), "the most accurate"
    return runs[0], "the first"


def _show(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
