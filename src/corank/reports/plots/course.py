"""The course of a search: what it minimised, and what it spent, at each iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, number
from corank.reports.plots.style import (
    BLUE,
    GREEN,
    PURPLE,
    VERMILION,
    add_legend,
    new_figure,
    set_title,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "draw"]

LONG_COURSE = 40


@dataclass(frozen=True)
class Line:
    """One quantity over the iterations that recorded it."""

    iterations: list[float]
    values: list[float]


def can_draw(run: Record) -> bool:
    """Whether the run's search recorded at least two iterations of a quantity that is shown."""
    history = entries(run, "search_history")
    return any(len(_line(history, key).values) > 1 for key in ("loss", "divergence", "extra_bits"))


def draw(run: Record) -> Figure:
    """A panel each for the loss, the divergence from the float model and the extra bits with the budget.

    Where the course is long, what was recorded is drawn lightly and its running mean over it.
    """
    history = entries(run, "search_history")
    losses = [(key, colour) for key, colour in (("loss", BLUE), ("divergence", PURPLE)) if _line(history, key).values]
    spends = bool(_line(history, "extra_bits").values)
    count = max(1, len(losses) + spends)
    figure = new_figure(0.9 + 1.75 * count)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, (key, colour) in zip(panels, losses, strict=False):
        _draw_loss(axes, _line(history, key), key, colour)
    if spends:
        _draw_spending(panels[-1], _line(history, "extra_bits"), _line(history, "budget_bits"))
    set_title(panels[0], "The course of the search")
    panels[-1].set_xlabel("iteration")
    return figure


def _draw_loss(axes: Axes, line: Line, key: str, colour: str) -> None:
    long = len(line.values) >= LONG_COURSE
    axes.plot(line.iterations, line.values, color=colour, linewidth=1.0, alpha=0.35 if long else 1.0, gid=key)
    if long:
        axes.plot(line.iterations, _running_mean(line.values), color=colour, linewidth=1.8, gid=f"{key}-mean")
    style_axes(axes, "", "", f"{key} (nats)" if key == "divergence" else key)
    if min(line.values) >= 0:
        axes.set_ylim(bottom=0)


def _draw_spending(axes: Axes, spent: Line, budget: Line) -> None:
    axes.plot(spent.iterations, spent.values, color=GREEN, linewidth=1.6, label="spent", gid="extra_bits")
    if budget.values:
        axes.plot(
            budget.iterations,
            budget.values,
            color=VERMILION,
            linewidth=1.4,
            linestyle=(0, (4, 2)),
            label="budget",
            gid="budget_bits",
        )
    style_axes(axes, "", "iteration", "extra bits per weight")
    axes.set_ylim(0, max([*spent.values, *budget.values, 1e-9]) * 1.1)
    add_legend(axes, columns=2)


def _line(history: list[Record], key: str) -> Line:
    points = [
        (float(place) if (iteration := number(step, "iteration")) is None else iteration, value)
        for place, step in enumerate(history)
        if (value := number(step, key)) is not None
    ]
    return Line([iteration for iteration, _ in points], [value for _, value in points])


def _running_mean(values: list[float]) -> list[float]:
    reach = max(2, len(values) // 25)
    means: list[float] = []
    for place in range(len(values)):
        near = values[max(0, place - reach) : place + reach + 1]
        means.append(sum(near) / len(near))
    return means
