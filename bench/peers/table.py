"""From the results of ``run.py`` to a table and a picture.

    python bench/peers/table.py peers.json --out docs/pictures [--network resnet20]

Writes ``peers-resnet20.md`` and ``peers-resnet20.png`` into the folder.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.reports.plots.style import INK, MUTED, NOTE_SIZE, PALETTE, add_legend, image_bytes, new_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "sD^vPXd"
# Where rounding alone has destroyed the network is of no interest, and would squeeze the rest together.
SHOWN_DROP = 14.0
AXES_POINTS = (335.0, 183.0)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Row:
    """One method of one tool at one width, means over seeds.

    Attributes:
        bits: of the codes.
        top1, spread: percent, and their standard deviation over seeds (None for one seed).
        kl: distance of the outputs from the float network's, in nats; None where it was not measured.
        stored: bits per quantized weight of a packed file, all counted.
        saved: bytes of the file that the tool writes.
        seconds: CPU time on one thread.
    """

    tool: str
    method: str
    bits: int
    seeds: int
    top1: float
    spread: float | None
    kl: float | None
    stored: float
    saved: float
    seconds: float
    note: str


def rows(results: dict[str, Any], network: str) -> list[Row]:
    """One row for each method and width of a network; most bits first, then by accuracy."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for value in results.values():
        if isinstance(value, dict) and value["network"] == network:
            groups.setdefault((value["tool"], value["method"], value["bits"]), []).append(value)
    made = [row(*name, runs) for name, runs in groups.items()]
    return sorted(made, key=lambda one: (-one.bits, -one.top1))


def row(tool: str, method: str, bits: int, runs: list[dict[str, Any]]) -> Row:
    """The runs of several seeds as one row."""
    scores = [run["accuracy"] for run in runs]
    return Row(
        tool,
        method,
        bits,
        len(runs),
        statistics.mean(scores),
        statistics.stdev(scores) if len(scores) > 1 else None,
        statistics.mean(run["kl"] for run in runs) if all("kl" in run for run in runs) else None,
        statistics.mean(run["stored_bits_per_weight"] for run in runs),
        statistics.mean(run["file_bytes"] for run in runs),
        statistics.mean(run["cpu_seconds"] for run in runs),
        runs[0]["note"],
    )


def markdown(table: list[Row], reference: float) -> str:
    """The table; ``reference`` is the float network's accuracy."""
    lines = [
        f"Float: {reference:.1f}.",
        "",
        "| Codes | Tool | Method | Top-1 (seeds) | KL | Bits stored per weight | File saved | CPU s | Settings |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in table:
        spread = "" if one.spread is None else f" ± {one.spread:.1f}"
        seconds = f"{one.seconds:.1f}" if one.seconds < 10 else f"{one.seconds:.0f}"
        distance = "" if one.kl is None else f"{one.kl:.3f}"
        lines.append(
            f"| {one.bits} bit | {one.tool} | {one.method} | {one.top1:.1f}{spread} ({one.seeds}) | {distance} "
            f"| {one.stored:.2f} | {one.saved / 1000:.0f} KB | {seconds} | {one.note} |"
        )
    return "\n".join(lines) + "\n"


def picture(table: list[Row], reference: float) -> Figure:
    """Accuracy against what is saved, against what is stored if packed, and, at the fewest bits, against CPU time."""
    fewest = min(one.bits for one in table)
    figure = new_figure(10.2)
    saved, stored, seconds = figure.subplots(3)
    panel(saved, table, lambda one: one.saved / 1000, reference)
    style_axes(saved, "Accuracy against the file that is saved", "file (KB, 1000 bytes)", "top-1 (%)")
    logarithmic(
        saved, [size for size in (100, 200, 400, 800, 1600, 3200) if saved.dataLim.x0 <= size <= saved.dataLim.x1]
    )
    panel(stored, table, lambda one: one.stored, reference)
    style_axes(stored, "The same if every tool packed its codes", "bits stored per weight, all counted", "top-1 (%)")
    panel(seconds, [one for one in table if one.bits == fewest], lambda one: max(one.seconds, 0.1), reference)
    style_axes(seconds, f"{fewest}-bit codes: accuracy against time", "CPU seconds, one thread", "top-1 (%)")
    logarithmic(seconds, (0.1, 1, 10, 100))
    name_methods(seconds, [one for one in table if one.bits == fewest and one.top1 >= reference - SHOWN_DROP])
    left_out = sum(one.top1 < reference - SHOWN_DROP for one in table)
    if left_out:
        saved.set_xlabel(f"{saved.get_xlabel()}; runs under {reference - SHOWN_DROP:.0f} %, not shown: {left_out}")
    add_legend(saved, columns=4)
    return figure


def panel(axes: Axes, table: list[Row], place: Callable[[Row], float], reference: float) -> None:
    """One point for each row, one colour and marker for each tool."""
    tools = sorted({one.tool for one in table}, key=lambda tool: tool != "corank")
    for tool in tools:
        points = [one for one in table if one.tool == tool and one.top1 >= reference - SHOWN_DROP]
        colour, marker = looks(tool, [one.tool for one in table])
        axes.plot(
            [place(one) for one in points],
            [one.top1 for one in points],
            color=colour,
            marker=marker,
            markersize=11 if tool == "corank" else 6.5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linestyle="none",
            label=tool,
            zorder=4 if tool == "corank" else 3,
        )
    axes.axhline(reference, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), label=f"float {reference:.1f} %")
    axes.margins(x=0.08, y=0.08)


def name_methods(axes: Axes, table: list[Row]) -> None:
    """The method's name beside each point, where it hides no point and no other name if there is such a place."""
    axes.set_xlim(0.07, 900)
    spots = {one: in_points(axes, one) for one in table}
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots.values()]
    for one, (x, y) in spots.items():
        width = 5.0 * len(one.method)
        shifts = [(8, -3), (-8 - width, -3), (-width / 2, 8), (-width / 2, -15), (8, -12), (-8 - width, -12)]
        boxes = [(x + right, y + up, x + right + width, y + up + NOTE_SIZE) for right, up in shifts]
        fits = [place for place, box in enumerate(boxes) if box[2] < AXES_POINTS[0]]
        free = [place for place in fits if not any(overlap(boxes[place], other) for other in taken)]
        place = free[0] if free else 0
        taken.append(boxes[place])
        axes.annotate(
            one.method,
            (max(one.seconds, 0.1), one.top1),
            xytext=shifts[place],
            textcoords="offset points",
            fontsize=NOTE_SIZE - 1,
            color=MUTED,
        )


def in_points(axes: Axes, one: Row) -> tuple[float, float]:
    """Where a row's point is, in typographic points from the axes' corner, in the usual layout."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across = (math.log(max(one.seconds, 0.1)) - math.log(left)) / (math.log(right) - math.log(left))
    return AXES_POINTS[0] * across, AXES_POINTS[1] * (one.top1 - bottom) / (top - bottom)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def looks(tool: str, names: list[str]) -> tuple[str, str]:
    """A tool's colour and marker; corank's are always the same."""
    if tool == "corank":
        return PALETTE[1], "*"
    place = sorted(set(names) - {"corank"}).index(tool)
    return (*PALETTE[:1], *PALETTE[2:], MUTED)[place % len(PALETTE)], MARKERS[place % len(MARKERS)]


def logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic axis with ticks that are plain numbers."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the table and the picture")
    parser.add_argument("--network", default="resnet20")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    table, reference = rows(results, options.network), results[f"{options.network}/float"]
    options.out.mkdir(parents=True, exist_ok=True)
    text = markdown(table, reference)
    print(text, end="")
    (options.out / f"peers-{options.network}.md").write_text(text)
    image = image_bytes(picture(table, reference), "png")
    (options.out / f"peers-{options.network}.png").write_bytes(image)


if __name__ == "__main__":
    main()
