"""The course of a search: how far the network was from the float one, and what it spent, at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, number
from corank.reports.plots.style import (
    BLUE,
    GREEN,
    PAGE_INCHES,
    VERMILION,
    add_legend,
    new_figure,
    set_title,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "can_draw", "describe", "draw", "draw_course", "line_of"]

LONG_COURSE = 40


@dataclass(frozen=True)
class Line:
    """One quantity over the iterations that recorded it."""

    iterations: list[float]
    values: list[float]

    def ends(self) -> tuple[float, float]:
        """The means of the first and of the last tenth."""
        count = max(1, len(self.values) // 10)
        return sum(self.values[:count]) / count, sum(self.values[-count:]) / count


def can_draw(run: Record) -> bool:
    """Whether the run's search recorded at least two iterations of a quantity that is shown."""
    history = _search(run)
    return any(len(line_of(history, key).values) > 1 for key in (_objective(history), "extra_bits"))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    history = _search(run)
    key, spent, budget = _objective(history), line_of(history, "extra_bits"), line_of(history, "budget_bits")
    objective = line_of(history, key)
    said = []
    if objective.values:
        first, last = objective.ends()
        said.append(f"The {key} goes from {first:.3g} to {last:.3g} in {len(objective.values)} steps")
    if spent.values:
        within = f", of a budget of {budget.values[-1]:.3g}" if budget.values else ""
        said.append(f"the adapters' bits per weight from {spent.values[0]:.3g} to {spent.values[-1]:.3g}{within}")
    return "; ".join(said) + "."


def draw(run: Record) -> Figure:
    """A panel for the divergence from the float model, and one for the extra bits with the budget.

    The loss is the divergence and a penalty that is a constant while the budget is kept; it would hide the
    divergence, and is shown only where that was not recorded. Where the course is long, what was recorded is drawn
    lightly and its running mean over it.
    """
    history = _search(run)
    key, spends = _objective(history), bool(line_of(history, "extra_bits").values)
    objective = line_of(history, key)
    count = max(1, bool(objective.values) + spends)
    figure = new_figure(0.9 + 1.75 * count, PAGE_INCHES)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    if objective.values:
        draw_course(panels[0], objective, key, BLUE)
    if spends:
        _draw_spending(panels[-1], line_of(history, "extra_bits"), line_of(history, "budget_bits"))
    set_title(panels[0], "The course of the search", pad=8 if objective.values or not spends else 23)
    panels[-1].set_xlabel("gradient step")
    return figure


def draw_course(axes: Axes, line: Line, key: str, colour: str) -> None:
    """One quantity over the steps; long courses lightly, with their running mean."""
    long = len(line.values) >= LONG_COURSE
    axes.plot(line.iterations, line.values, color=colour, linewidth=1.0, alpha=0.35 if long else 1.0, gid=key)
    if long:
        axes.plot(line.iterations, _running_mean(line.values), color=colour, linewidth=1.8, gid=f"{key}-mean")
    style_axes(axes, "", "", f"{key} from float" if key == "divergence" else key)
    if min(line.values) >= 0 and key == "divergence":
        axes.set_ylim(bottom=0)


def line_of(history: list[Record], key: str) -> Line:
    """The quantity of that name; its places where no iteration is recorded."""
    points = [
        (float(place) if (iteration := number(step, "iteration")) is None else iteration, value)
        for place, step in enumerate(history)
        if (value := number(step, key)) is not None
    ]
    return Line([iteration for iteration, _ in points], [value for _, value in points])


def _search(run: Record) -> list[Record]:
    """The steps of the search: they tell what they spent, or both a loss and a divergence; of a refinement's and a
    training's none does."""
    return [
        step
        for step in entries(run, "search_history")
        if number(step, "extra_bits") is not None
        or (number(step, "loss") is not None and number(step, "divergence") is not None)
    ]


def _objective(history: list[Record]) -> str:
    return "divergence" if line_of(history, "divergence").values else "loss"


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
    style_axes(axes, "", "gradient step", "extra bits per weight")
    axes.set_ylim(0, max([*spent.values, *budget.values, 1e-9]) * 1.1)
    add_legend(axes, columns=2)


def _running_mean(values: list[float]) -> list[float]:
    reach = max(2, len(values) // 25)
    means: list[float] = []
    for place in range(len(values)):
        near = values[max(0, place - reach) : place + reach + 1]
        means.append(sum(near) / len(near))
    return means
