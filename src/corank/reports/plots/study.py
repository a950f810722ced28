"""A study's course, which choices mattered, and score against size."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, number, text
from corank.reports.plots.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    NOTE_SIZE,
    ORANGE,
    PAGE_INCHES,
    SOFT,
    VERMILION,
    add_legend,
    label_layers,
    new_figure,
    plot_text,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "can_draw_front",
    "can_draw_importance",
    "draw_front",
    "draw_history",
    "draw_importance",
    "is_weighed_by_work",
    "last_rung",
    "sized",
]

HEIGHT = 3.0
KILOBYTE, MILLION = 1e3, 1e6
APART = 0.06  # of the axes: nearer numbers would cover each other
LOWEST = 0.05  # of the scores: below this quantile the axis ends


def last_rung(trial: Record) -> Record:
    """What was measured on the most data; empty for a trial that failed."""
    rungs = entries(trial, "rungs")
    return rungs[-1] if rungs else {}


def draw_history(study: Record) -> Figure:
    """The score of every trial in order, and the best so far of those that met the goal."""
    figure = new_figure(HEIGHT, PAGE_INCHES)
    axes = figure.subplots()
    trials = entries(study, "trials")
    states = {"complete": ("o", BLUE, "complete"), "pruned": ("o", SOFT, "left after a cheap look")}
    for state, (marker, colour, label) in states.items():
        scores = [number(last_rung(one), "score") if text(one, "state") == state else None for one in trials]
        points = [(place, score) for place, score in enumerate(scores) if score is not None]
        if points:
            filled = colour if state == "complete" else "none"
            axes.plot(
                *zip(*points, strict=True), marker, color=colour, markerfacecolor=filled, markersize=5, label=label
            )
    failed = [place for place, one in enumerate(trials) if text(one, "state") == "failed"]
    _frame(axes, study)
    if failed:
        axes.plot(failed, [axes.get_ylim()[0]] * len(failed), "x", color=VERMILION, label="failed", clip_on=False)
    course = _best_so_far(study)
    if course:
        axes.step(*zip(*course, strict=True), where="post", color=GREEN, linewidth=1.4, label="best so far")
    style_axes(axes, "Every trial", "trial", _scored(study))
    add_legend(axes, columns=3)
    return figure


def can_draw_importance(study: Record) -> bool:
    """Whether some choice had more than one value."""
    return any((number(one, "share") or 0.0) > 0 for one in entries(study, "importance"))


def draw_importance(study: Record) -> Figure:
    """One bar for each choice: the share of the scores' variance between its values."""
    found = entries(study, "importance")
    figure = new_figure(1.0 + 0.26 * max(3, len(found)), PAGE_INCHES)
    axes = figure.subplots()
    shares = [100 * (number(one, "share") or 0.0) for one in found]
    axes.barh(range(len(found)), shares, height=0.66, color=ORANGE)
    style_axes(axes, "Which choices mattered", "variance between its values (%)", "", grid="x")
    label_layers(axes, [text(one, "name") or "" for one in found])
    axes.set_xlim(0, max([*shares, 1.0]) * 1.2)
    for place, share in enumerate(shares):
        axes.annotate(f"{share:.0f} %", (share, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=NOTE_SIZE, color=MUTED)  # fmt: skip
    return figure


def can_draw_front(study: Record) -> bool:
    """Whether files differ in size, or networks in work."""
    return len({cost for cost, _, _ in sized(study)}) > 1


def is_weighed_by_work(study: Record) -> bool:
    """Whether scores are weighed against multiply-adds, and not against bytes."""
    return study.get("by") == "multiply_adds"


def draw_front(study: Record) -> Figure:
    """Score against size, the trials that no other one beats in both joined by a line.

    Each trial's marker has the id ``trial-N``.
    """
    figure = new_figure(HEIGHT, PAGE_INCHES)
    axes = figure.subplots()
    points, unit = sized(study), MILLION if is_weighed_by_work(study) else KILOBYTE
    front = {name for one in study.get("front") or () if (name := _whole(one)) is not None}
    best = sorted(one for one in points if one[2] in front)
    others = [one for one in points if one[2] not in front]
    axes.step([one[0] / unit for one in best], [one[1] for one in best], "-", where="post", color=BLUE)
    for name, colour, size, kind in (("trials", SOFT, 4.5, others), ("no other one beats them", BLUE, 6.0, best)):
        for place, (cost, score, trial) in enumerate(kind):
            label = name if place == 0 else None
            axes.plot([cost / unit], [score], "o", color=colour, markersize=size, label=label, gid=f"trial-{trial}")
    goal = study.get("goal")
    most = number(goal, "size") if isinstance(goal, Mapping) and unit == KILOBYTE else None
    if most is not None:
        axes.axvline(most / unit, color=VERMILION, linewidth=1.0, linestyle=(0, (4, 3)), label="wanted at most")
    _frame(axes, study)
    _number(axes, [(cost / unit, score, trial) for cost, score, trial in best])
    name = "multiply-adds of a sample (millions)" if unit == MILLION else "file (KB, 1000 bytes)"
    style_axes(axes, "Score against multiply-adds" if unit == MILLION else "Score against size", name, _scored(study))
    add_legend(axes, columns=3)
    return figure


def _number(axes: Axes, points: list[tuple[float, float, int]]) -> None:
    """Numbers below their points, but for those that would stand on the one before."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    last = None
    for cost, score, trial in points:
        if last is None or (cost - last[0]) / (right - left) > APART or (score - last[1]) / (high - low) > APART:
            axes.annotate(f"{trial}", (cost, score), xytext=(5, -10), textcoords="offset points", fontsize=NOTE_SIZE,
                          color=INK)  # fmt: skip
            last = (cost, score)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _frame(axes: Axes, study: Record) -> None:
    """The float score as a line, and an axis that a few destroyed networks do not stretch."""
    reference = number(study, "reference")
    scores = sorted(score for one in entries(study, "trials") if (score := number(last_rung(one), "score")) is not None)
    if reference is not None and reference < 100:
        axes.axhline(
            reference, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), label=plot_text(f"float {reference:.1f}")
        )
    if len(scores) > 1:
        low, high = scores[int(LOWEST * len(scores))], max(scores[-1], reference or scores[-1])
        spare = max(0.06 * (high - low), 0.05)
        axes.set_ylim(max(scores[0], low - 0.5 * (high - low)) - spare, high + spare)


def _best_so_far(study: Record) -> list[tuple[int, float]]:
    goal = study.get("goal")
    most = number(goal, "size") if isinstance(goal, Mapping) else None
    found = []
    for place, one in enumerate(entries(study, "trials")):
        score, size = number(last_rung(one), "score"), number(last_rung(one), "size_bytes")
        if text(one, "state") == "complete" and score is not None and (most is None or (size or 0) <= most):
            found.append((place, score))
    best = list(accumulate((score for _, score in found), max))
    return [(place, score) for (place, _), score in zip(found, best, strict=True)]


def sized(study: Record) -> list[tuple[float, float, int]]:
    """Bytes (or multiply-adds), score and number of every complete trial that has them."""
    key = "multiply_adds" if is_weighed_by_work(study) else "size_bytes"
    found = []
    for one in entries(study, "trials"):
        cost, score = number(last_rung(one), key), number(last_rung(one), "score")
        if text(one, "state") == "complete" and cost is not None and score is not None:
            found.append((cost, score, int(number(one, "number") or 0)))
    return found


def _scored(study: Record) -> str:
    scored = text(study, "scored", 40) or "score"
    return plot_text(scored if scored == "score" else f"{scored} (%)")
