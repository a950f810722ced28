"""What the terminal shows. Results go to stdout, everything else to stderr; NO_COLOR is honoured."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleRenderable, RenderHook
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from corank.reports.cells import NOTHING, show_bits, show_bytes, show_percent, show_ratio
from corank.reports.fields import clean, file_bits, number

__all__ = [
    "NATS",
    "Unread",
    "errors_console",
    "facts_table",
    "results_console",
    "show_json",
    "show_lines",
    "show_skipped",
    "show_tried",
    "summary_table",
]

NATS = "nats per token"
PIPE_WIDTH = 120
NARROW = 72  # columns of a screen on which tables that do not fit are written as lines
MOST_SKIPPED = 12


class Unread(Exception):
    """Nobody reads standard output any more."""


class _Screen(Console):
    """A console that lets its caller know when nobody reads on, where rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        raise Unread


class _Narrow(RenderHook):
    """Writes tables that a narrow screen would break inside of words as lines, a block for each row."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is shown instead."""
        return [self._fitted(one) for one in renderables]

    def _fitted(self, one: ConsoleRenderable) -> ConsoleRenderable:
        if not isinstance(one, Table):
            return one
        width = Measurement.get(self._console, self._console.options.update_width(1000), one).maximum
        fits = self._console.width >= NARROW or width <= self._console.width
        return one if fits else Text("\n").join(_blocks(one))


def results_console() -> Console:
    """Standard output."""
    console = _Screen(width=_width(sys.stdout.isatty()), highlight=False)
    console.push_render_hook(_Narrow(console))
    return console


def errors_console() -> Console:
    """Standard error."""
    return Console(stderr=True, width=_width(sys.stderr.isatty()), highlight=False)


def show_json(record: Mapping[str, Any]) -> None:
    """A record as JSON on standard output, numbers that are not finite as null."""
    console = results_console()
    console.out(json.dumps(_finite(record), indent=2, allow_nan=False), highlight=False)


def show_lines(console: Console, lines: Sequence[str]) -> None:
    """Lines as they are, never wrapped and never read as markup."""
    for line in lines:
        console.print(Text(clean(line, 2000)), soft_wrap=True)


def show_skipped(console: Console, skipped: Mapping[str, str]) -> None:
    """The layers left in float, each with the reason."""
    if not skipped:
        return
    lines = [f"  {name or '(model)'}: {reason}" for name, reason in list(skipped.items())[:MOST_SKIPPED]]
    more = len(skipped) - MOST_SKIPPED
    show_lines(console, [f"left in float ({len(skipped)}):", *lines, *([f"  and {more} more"] if more > 0 else [])])


def show_tried(console: Console, record: Mapping[str, Any]) -> None:
    """The files tried for a drop, each with what it lost; nothing where none were."""
    unit = "nats" if record["metric"] == NATS else "points"
    lines = [
        f"  {trial['bits']:g} bits" + (f" + {trial['budget']:g}" if trial["budget"] else "")
        + f": {trial['drop']:.{3 if unit == 'nats' else 2}f} {unit} in {show_bytes(trial['stored_bytes'])}"
        for trial in record.get("tried", ())
    ]  # fmt: skip
    show_lines(console, ["lost by what was tried:", *lines] if lines else [])


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and what they are, without a heading."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(clean(value)))
    return table


def summary_table(record: Mapping[str, Any], made: str = "quantized") -> Table:
    """The float model and the one that was ``made`` of it, of one record, side by side."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("float", justify="right")
    table.add_column(made, justify="right")
    for row in _rows(record):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _blocks(table: Table) -> list[Text]:
    """Each row of a table: its first cell, and below it the others by the name of their column."""
    headers = [_plain(column.header) for column in table.columns]
    rows = zip(*([_plain(cell) for cell in column.cells] for column in table.columns), strict=True)
    blocks = [Text(_plain(table.title), "bold")] if table.title else []
    for first, *others in rows:
        if not table.show_header:
            blocks.append(Text.assemble((first, "bold"), ": ", "  ".join(others)))
            continue
        cells = [f"{header} {cell}".strip() for header, cell in zip(headers[1:], others, strict=True) if cell]
        blocks.append(Text.assemble((first, "bold"), "\n  " if cells else "", ", ".join(cells)))
    return blocks


def _plain(cell: Any) -> str:
    return (cell.plain if isinstance(cell, Text) else str(cell or "")).strip()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    divergence = number(record, "kl")
    seconds, bits = number(record, "seconds"), number(record, "equivalent_bits")
    size = show_bytes(number(record, "stored_bytes"))
    ratio = show_ratio(record)
    rows = [("file", show_bytes(number(record, "float_bytes")), size)]
    if ratio != NOTHING:
        rows.append(("smaller", "", ratio))
    activations = number(record, "activations")
    if activations is not None:
        rows.append(("weights and inputs", "", show_bits(number(record, "bits"), activations)))
    coded = file_bits(record)
    if bits is not None:
        counted = "all counted" if coded is None else "before coding"
        rows.append((f"bits per weight, {counted}", "", f"{bits:.3f}"))
    if coded is not None:
        rows.append(("as the file codes them", "", f"{coded:.3f}"))
    rows = [*_scores(record), *rows]
    if divergence is not None:
        rows.append(("KL from float (nats)", "", f"{divergence:.5f}"))
    if seconds is not None:
        rows.append(("seconds", "", f"{seconds:.1f}"))
    return [*rows, *_speeds(record.get("speed") or {})]


def _speeds(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What was measured of language models, if it was."""
    both = [found.get(name) or {} for name in ("float", "quantized")]
    rows = []
    for name, key in (("tokens a second, reading", "prefill"), ("writing", "decode")):
        cells = [number(one, key) for one in both]
        rows.append((name, *("" if cell is None else f"{cell:,.1f}" for cell in cells)))
    rows.append(("weights in memory", *(show_bytes(number(one, "held_bytes")) if one else "" for one in both)))
    return rows if found else []


def _scores(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Accuracy or nats per token, and how often both models choose alike."""
    original, quantized = number(record, "float_value"), number(record, "quantized_value")
    agreement, samples = number(record, "agreement"), number(record, "eval_samples")
    count = "" if samples is None else f" of {samples:,.0f}"
    rows: list[tuple[str, str, str]] = []
    is_language, known = record["metric"] == NATS, original is not None or quantized is not None
    if known and is_language:
        rows.append((f"nats per token{count}", _nats(original), _nats(quantized)))
        rows.append(("perplexity", _perplexity(original), _perplexity(quantized)))
    elif known:
        rows.append(
            (
                f"top-1{count} {record.get('scored') or 'images'}" if count else "top-1",
                show_percent(original),
                show_percent(quantized),
            )
        )
    rows += _attacked(record)
    if agreement is not None:
        rows.append(("same next token as float" if is_language else "same class as float", "", show_percent(agreement)))
    return rows


def _attacked(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Accuracy under each attack that was asked for."""
    found, original = record.get("attacked") or {}, record.get("float_attacked") or {}
    return [
        (f"top-1 under {name}", show_percent(number(original, name)), show_percent(number(found, name)))
        for name in found
    ]


def _nats(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _perplexity(nats: float | None) -> str:
    return NOTHING if nats is None else f"{math.exp(min(nats, 700.0)):.4g}"


def _width(terminal: bool) -> int | None:
    # In a pipe nothing says how wide the reader is; COLUMNS may.
    return None if terminal or os.environ.get("COLUMNS", "").isdigit() else PIPE_WIDTH
