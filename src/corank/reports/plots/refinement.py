"""The course of a refinement: a distillation's steps, or the blocks that were learned anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, number
from corank.reports.plots.course import draw_course, line_of
from corank.reports.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PAGE_INCHES,
    VERMILION,
    add_legend,
    layers_height,
    new_figure,
    set_title,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw", "judged"]

MOST_BLOCKS = 60
TITLE = "The course of the refinement"


def can_draw(run: Record) -> bool:
    """Whether the run recorded at least two steps of a refinement, or one block."""
    return bool(_blocks(run)) or len(line_of(_steps(run), "divergence").values) > 1


def judged(run: Record) -> tuple[float, float] | None:
    """Divergence on the samples that judged a distillation, before and after it; None where none was recorded."""
    for step in reversed(_steps(run)):
        before, after = number(step, "before"), number(step, "after")
        if before is not None and after is not None:
            return before, after
    return None


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    blocks = _blocks(run)
    if blocks:
        better = sum(after < before for before, after in blocks)
        return f"Errors of {len(blocks)} blocks before and after they were learned anew; {better} became smaller."
    line = line_of(_steps(run), "divergence")
    first, last = line.ends()
    said = f"The divergence goes from {first:.3g} to {last:.3g} in {len(line.values)} steps"
    pair = judged(run)
    return said + ("." if pair is None else f"; on the samples that judge it, from {pair[0]:.3g} to {pair[1]:.3g}.")


def draw(run: Record) -> Figure:
    """The divergence from the float model at each step, and on the samples that judge the result before and after.

    For a block reconstruction a line per block instead, first on top, from its error before to that after.
    """
    blocks = _blocks(run)
    figure = new_figure(layers_height(min(len(blocks), MOST_BLOCKS)) if blocks else 2.6, PAGE_INCHES)
    axes = figure.subplots()
    if blocks:
        _draw_blocks(axes, blocks)
        return figure
    line = line_of(_steps(run), "divergence")
    if line.values:
        draw_course(axes, line, "divergence", BLUE)
        _draw_judged(axes, judged(run))
    set_title(axes, TITLE)
    axes.set_xlabel("gradient step")
    add_legend(axes, columns=2)
    return figure


def _draw_judged(axes: Axes, pair: tuple[float, float] | None) -> None:
    if pair is None:
        return
    for value, name, colour in zip(pair, ("before", "after"), (VERMILION, GREEN), strict=True):
        axes.axhline(value, color=colour, linewidth=1.3, linestyle=(0, (4, 2)), label=f"judged {name}", gid=name)


def _draw_blocks(axes: Axes, blocks: list[tuple[float, float]]) -> None:
    before, after = ([100 * pair[place] for pair in blocks] for place in (0, 1))
    places = range(1, len(blocks) + 1)
    axes.hlines(places, before, after, color=GREY, linewidth=1.4)
    axes.scatter(before, places, s=24, color=VERMILION, label="before", zorder=3)
    axes.scatter(after, places, s=24, color=GREEN, marker="D", label="after", zorder=3)
    style_axes(axes, TITLE, "error of the block's output (%)", "block", grid="x")
    axes.tick_params(labelcolor=INK)
    axes.set_xlim(left=0)
    axes.set_ylim(len(blocks) + 0.6, 0.4)
    axes.locator_params(axis="y", integer=True)
    add_legend(axes, columns=2)


def _steps(run: Record) -> list[Record]:
    """A distillation's steps: they tell a divergence, and neither a loss nor what they spent."""
    return [
        step
        for step in entries(run, "search_history")
        if number(step, "divergence") is not None
        and number(step, "extra_bits") is None
        and number(step, "loss") is None
    ]


def _blocks(run: Record) -> list[tuple[float, float]]:
    """Relative errors of a block reconstruction, before and after."""
    found = []
    for step in entries(run, "search_history"):
        before, after = number(step, "before"), number(step, "after")
        if before is not None and after is not None and number(step, "divergence") is None:
            found.append((before, after))
    return found
