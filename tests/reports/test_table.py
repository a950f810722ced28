"""Tables in a terminal and in Markdown."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.table import Table

from corank.reports import comparison_table, layer_table, markdown_table

HOSTILE = "[red]x[/red] | `y` <b> \x1b[2J _z_"


def shown(table: Table, width: int = 200) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(table)
    return file.getvalue()


def test_the_comparison_has_one_row_per_run(runs: list[dict[str, Any]]) -> None:
    table = comparison_table(runs)
    assert table.row_count == 5
    lines = shown(table).splitlines()
    (line,) = [line for line in lines if "fast 3+0.2" in line]
    assert line.split() == [
        "fast",
        "3+0.2",
        "3",
        "3.350",
        "80.25",
        "%",
        "0.75",
        "120.50",
        "KB",
        "9.0x",
        "250",
        "61.5",
    ]
    assert "float model: 81.00 %, 1.09 MB" in shown(table)


def test_the_comparison_fits_a_terminal_of_80_columns(runs: list[dict[str, Any]]) -> None:
    output = shown(comparison_table(runs), width=80)
    for run in runs:
        assert run["label"] in output and f"{run['quantized_value']:.2f} %" in output


def test_the_layers_of_a_run(run: dict[str, Any], bare: dict[str, Any]) -> None:
    table = layer_table(run)
    assert table.row_count == len(run["layers"])
    assert "layer3.2.conv2" in shown(table) and "16 × 144" in shown(table)
    assert layer_table(bare).row_count == 0


def test_markup_in_a_label_is_shown_and_not_obeyed(bare: dict[str, Any]) -> None:
    output = shown(comparison_table([{**bare, "label": HOSTILE}]))
    assert "[red]x[/red]" in output and "\x1b" not in output
    assert "[red]" in shown(layer_table({**bare, "layers": [{"name": "[red]"}]}))


def test_markdown_is_a_table_of_as_many_cells_as_columns(runs: list[dict[str, Any]]) -> None:
    heading, rule, *rows = markdown_table(runs).splitlines()
    assert heading.startswith("| run | bits | bits per weight | top-1 |")
    assert rule.count("|") == heading.count("|") == 10
    assert len(rows) == 5
    assert rows[3] == "| fast 3+0.2 | 3 | 3.350 | 80.25 % | 0.75 | 120.50 KB | 9.0x | 250 | 61.5 |"


def test_markdown_signs_in_a_label_are_escaped(bare: dict[str, Any]) -> None:
    row = markdown_table([{**bare, "label": HOSTILE}]).splitlines()[2]
    assert row.startswith(r"| \[red\]x\[/red\] \| \`y\` \<b\> ")
    assert row.replace(r"\|", "").count("|") == 10
