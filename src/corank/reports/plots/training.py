"""The course of a training: loss, score, oscillations, norms, condition numbers, rate and others, a panel each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, number
from corank.reports.plots.course import Line, draw_course, line_of
from corank.reports.plots.style import (
    BLUE,
    GREEN,
    INK,
    NOTE_SIZE,
    ORANGE,
    PAGE_INCHES,
    PURPLE,
    TITLE_SIZE,
    VERMILION,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw", "is_training_step"]

COLUMNS = 2
PANEL_INCHES, TOP_INCHES, BOTTOM_INCHES = 1.32, 0.42, 0.5


@dataclass(frozen=True)
class Panel:
    """One quantity: its key in the history, its title, colour, and what its numbers are shown times."""

    key: str
    title: str
    colour: str
    factor: float = 1.0
    from_zero: bool = False


PANELS = (
    Panel("loss", "loss", BLUE),
    Panel("largest", "loss of the largest subnet", GREEN),
    Panel("score", "score", GREEN),
    Panel("oscillations", "oscillations at a look", VERMILION, from_zero=True),
    Panel("moved", "codes that moved (%)", ORANGE, 100.0, from_zero=True),
    Panel("norm", "mean norm of the weights", PURPLE),
    Panel("sparsity", "weights that are zero (%)", ORANGE, 100.0, from_zero=True),
    Panel("condition", "log10 condition number, mean", PURPLE, from_zero=True),
    Panel("condition_max", "log10 condition number, worst", VERMILION, from_zero=True),
    Panel("log_norms", "log of the product of norms", PURPLE),
    Panel("norm_gradient", "its change by the gradient", BLUE),
    Panel("norm_noise", "spread of that by noise", ORANGE, from_zero=True),
    Panel("norm_curvature", "its change by curvature", VERMILION),
    Panel("rate_bits", "bits per weight, coded", GREEN),
    Panel("rate", "bits per weight, coded", GREEN),
)


def can_draw(run: Record) -> bool:
    """Whether the run recorded at least two steps of a training."""
    return any(len(line.values) > 1 for _, line in _lines(run))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    said = []
    for panel, line in _lines(run):
        first, last = line.ends()
        said.append(f"{panel.title}: from {first:.3g} to {last:.3g}")
    count = len(_steps(run))
    return f"{count} steps of a training. " + "; ".join(said) + "."


def draw(run: Record) -> Figure:
    """A small panel for each quantity that was recorded, over the steps. Long courses are drawn lightly, their running
    mean over them."""
    lines = _lines(run)
    rows = max(1, -(-len(lines) // COLUMNS))
    height = TOP_INCHES + BOTTOM_INCHES + PANEL_INCHES * rows
    figure = new_figure(height, PAGE_INCHES, fitted=False)
    figure.subplots_adjust(
        left=0.115,
        right=0.97,
        bottom=BOTTOM_INCHES / height,
        top=1 - (TOP_INCHES + 0.2) / height,
        hspace=0.62,
        wspace=0.3,
    )
    figure.text(
        0.015, 1 - 0.24 / height, "The course of the training", fontsize=TITLE_SIZE, fontweight="bold", color=INK
    )
    widest = max((line.iterations[-1] for _, line in lines), default=1.0)
    for place, (panel, line) in enumerate(lines):
        axes = figure.add_subplot(rows, min(COLUMNS, len(lines)), place + 1)
        _draw_panel(axes, panel, line, widest)
        if place + COLUMNS >= len(lines):
            axes.set_xlabel("step", fontsize=NOTE_SIZE, color=INK)
    return figure


def is_training_step(step: Record) -> bool:
    """Whether an entry of a history is a step of a training: a loss, and none of what a rank search tells beside it."""
    return number(step, "loss") is not None and all(number(step, key) is None for key in ("divergence", "extra_bits"))


def _draw_panel(axes: Axes, panel: Panel, line: Line, widest: float) -> None:
    draw_course(axes, line, panel.key, panel.colour)
    axes.set_ylabel("")
    axes.set_title(panel.title, loc="left", fontsize=NOTE_SIZE, color=INK, pad=4)
    axes.tick_params(labelsize=NOTE_SIZE - 0.5, length=2)
    axes.locator_params(nbins=4)
    axes.set_xlim(0, widest)
    if panel.from_zero:
        axes.set_ylim(0, max(*line.values, 1e-9) * 1.08)


def _lines(run: Record) -> list[tuple[Panel, Line]]:
    """What was recorded at two steps or more; of two keys for one quantity the first."""
    steps, found = _steps(run), []
    for panel in PANELS:
        line = line_of(steps, panel.key)
        if len(line.values) > 1 and panel.title not in [other.title for other, _ in found]:
            found.append((panel, Line(line.iterations, [panel.factor * value for value in line.values])))
    return found


def _steps(run: Record) -> list[Record]:
    return [step for step in entries(run, "search_history") if is_training_step(step)]
