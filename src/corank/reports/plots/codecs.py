"""Codecs side by side: accuracy against the size of the file, one panel for each way to round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corank.reports.plots.style import (
    INK,
    MUTED,
    PALETTE,
    add_legend,
    new_figure,
    plot_text,
    set_title,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_codecs"]

MARKERS = "osD^vPX*<>hdp8H"
# Where rounding has destroyed the network is of no interest, and would squeeze the rest together.
SHOWN_DROP = 20.0
LEGEND_COLUMNS = 3  # of the longest names, as many as the picture is wide

Result = Mapping[str, Any]


def draw_codecs(results: Sequence[Result], float_scores: Mapping[str, Any]) -> Figure:
    """One line for each codec, its points the widths; a panel for each rounder and budget of adapters.

    Args:
        results: records of :func:`corank.verbs.compare.compare` without an error.
        float_scores: of the float network; "top1" or, without labels, nothing: agreement is drawn then.
    """
    metric = "top1" if "top1" in float_scores else "agreement"
    best = float(float_scores.get("top1", 100.0))
    panels = list(dict.fromkeys((one["rounder"], one["budget"]) for one in results))
    names = sorted({one["codec"] for one in results})
    figure = new_figure(1.0 + 2.6 * len(panels))
    grid = figure.subplots(len(panels), squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (rounder, budget) in zip(grid, panels, strict=True):
        own = [one for one in results if (one["rounder"], one["budget"]) == (rounder, budget)]
        shown = [one for one in own if one[metric] >= best - SHOWN_DROP]
        for place, name in enumerate(names):
            _line(axes, place, name, [one for one in shown if one["codec"] == name], metric)
        axes.axhline(best, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), label=f"float {best:.1f} %")
        with_adapters = f", adapters of {budget:g} bits a weight" if budget else ""
        style_axes(axes, f"{rounder}{with_adapters}", "", "top-1 (%)" if metric == "top1" else "as float (%)")
        if len(own) > len(shown):
            note = f"{len(own) - len(shown)} under {best - SHOWN_DROP:.0f} % not shown"
            axes.text(0.99, 0.03, note, transform=axes.transAxes, ha="right", color=MUTED, fontsize=8)
    grid[-1].set_xlabel("file (KB, 1000 bytes)")
    add_legend(grid[0], columns=LEGEND_COLUMNS)
    set_title(grid[0], grid[0].get_title(loc="left"), pad=8 + 15 * -(-(len(names) + 1) // LEGEND_COLUMNS))
    return figure


def _line(axes: Axes, place: int, name: str, points: Sequence[Result], metric: str) -> None:
    ordered = sorted(points, key=lambda one: one["stored_bytes"])
    axes.plot(
        [one["stored_bytes"] / 1000 for one in ordered],
        [one[metric] for one in ordered],
        color=PALETTE[place % len(PALETTE)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=1.0,
        linestyle="-" if place < len(PALETTE) else "--",
        label=plot_text(name),
    )
