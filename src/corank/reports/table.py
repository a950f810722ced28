"""Runs and layers as tables: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from corank.reports.cells import (
    LAYER_COLUMNS,
    comparison_cells,
    comparison_columns,
    float_note,
    layer_cells,
)
from corank.reports.fields import Record, entries, run_label

__all__ = ["comparison_table", "layer_table", "markdown_table"]

# Short enough for the table to fit a terminal of 80 columns.
TERMINAL_NAMES = MappingProxyType({"bits per weight": "per weight", "iterations": "iter.", "seconds": "s"})
MARKDOWN_SIGNS = "\\`*_[]|<>&"


def comparison_table(runs: Sequence[Record]) -> Table:
    """One row per run: bits, accuracy (percent), points lost to float, file size (1 KB = 1000 bytes), cost.

    What a record does not say is shown as "–". Texts from records are shown as they are, never as markup.
    """
    columns = [TERMINAL_NAMES.get(name, name) for name in comparison_columns(runs)]
    table = _table(columns, [comparison_cells(run) for run in runs], left=1)
    note = float_note(runs)
    table.caption = Text(note, style="dim") if note else None
    return table


def layer_table(run: Record) -> Table:
    """One row per layer of `run`: weight shape `(R, C)`, bits, rank, stored size, output error in percent."""
    table = _table(LAYER_COLUMNS, [layer_cells(layer) for layer in entries(run, "layers")], left=2)
    table.title = Text(run_label(run))
    return table


def markdown_table(runs: Sequence[Record]) -> str:
    """The comparison as a Markdown table that ends with a line feed; signs of Markdown are escaped."""
    columns = comparison_columns(runs)
    rule = [":--"] + ["--:"] * (len(columns) - 1)
    rows = [columns, *(comparison_cells(run) for run in runs)]
    lines = ["| " + " | ".join(_markdown(cell) for cell in row) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _markdown(cell: str) -> str:
    return "".join("\\" + letter if letter in MARKDOWN_SIGNS else letter for letter in cell.replace("\n", " "))
