"""Accuracy against file size of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.cells import metric_name, show_bytes
from corank.reports.fields import Record, number, run_label
from corank.reports.plots.style import (
    INK,
    MUTED,
    NOTE_SIZE,
    PALETTE,
    add_legend,
    new_figure,
    plot_text,
    shorten,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "draw", "family"]

MARKERS = "osD^vP"
MOST_NOTED_RUNS = 16
MOST_FLOAT_LINES = 4
AXES_POINTS = (330.0, 230.0)

Pair = tuple[float, float]
Box = tuple[float, float, float, float]


def can_draw(runs: Sequence[Record]) -> bool:
    """Whether at least two runs know both their accuracy and their file size."""
    return len(_rated(runs)) > 1


def family(label: str) -> str:
    """The method that a label names: its words before the first one with a digit ("fast 3+0.2" is "fast")."""
    words: list[str] = []
    for word in label.split():
        if any(letter.isdigit() for letter in word):
            break
        words.append(word)
    return " ".join(words) or label


def draw(runs: Sequence[Record]) -> Figure:
    """One point per run, size in KB (1000 bytes), accuracy in percent; one colour and marker per family."""
    figure = new_figure(4.2)
    axes = figure.subplots()
    rated = _rated(runs)
    names = list(dict.fromkeys(family(run_label(run)) for run in rated))
    for place, name in enumerate(names):
        _draw_family(axes, place, name, [run for run in rated if family(run_label(run)) == name])
    style_axes(axes, "Accuracy against file size", "file size (KB, 1000 bytes)", f"{metric_name(runs)} (%)")
    axes.yaxis.label.set_text(plot_text(axes.yaxis.label.get_text()))
    axes.margins(x=0.13, y=0.09)
    _draw_float_lines(axes, rated)
    if len(rated) <= MOST_NOTED_RUNS:
        _note_runs(axes, rated)
    add_legend(axes, columns=min(4, max(1, len(names))))
    return figure


def _rated(runs: Sequence[Record]) -> list[Record]:
    """The quantized runs; the float network's own file would squeeze the rest, and its accuracy is a line."""
    known = [run for run in runs if None not in (number(run, "quantized_value"), number(run, "stored_bytes"))]
    return [run for run in known if number(run, "stored_bytes") != number(run, "float_bytes")]


def _point(run: Record) -> tuple[float, float]:
    return (number(run, "stored_bytes") or 0.0) / 1000, number(run, "quantized_value") or 0.0


def _draw_family(axes: Axes, place: int, name: str, runs: list[Record]) -> None:
    points = sorted(_point(run) for run in runs)
    axes.plot(
        [size for size, _ in points],
        [value for _, value in points],
        color=PALETTE[place % len(PALETTE)],
        marker=MARKERS[(place // len(PALETTE) + place) % len(MARKERS)],
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=1.2,
        label=plot_text(shorten(name, 22)),
        zorder=3,
    )


def _draw_float_lines(axes: Axes, runs: list[Record]) -> None:
    known = dict.fromkeys((number(run, "float_value"), number(run, "float_bytes")) for run in runs)
    floats = [(value, size) for value, size in known if value is not None]
    for value, size_bytes in floats[:MOST_FLOAT_LINES]:
        size = "" if size_bytes is None else f", {show_bytes(size_bytes)}"
        label = plot_text(f"float {value:.1f} %{size}")
        axes.axhline(value, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), gid="float", label=label)


def _note_runs(axes: Axes, runs: list[Record]) -> None:
    points = [_in_points(axes, run) for run in runs]
    taken = [(x - 4.0, y - 4.0, x + 4.0, y + 4.0) for x, y in points]
    for run, (x, y) in zip(runs, points, strict=True):
        label = run_label(run)
        note = shorten(label[len(family(label)) :].strip(), 12)
        width = 5.2 * len(note)
        places = [(6.0, -11.0), (6.0, 3.0), (-width - 6, 3.0), (-width - 6, -11.0)]
        free = [place for place in places if _is_free((x, y), place, width, taken)]
        shift = (free or places)[0]
        taken.append(_box((x, y), shift, width))
        axes.annotate(
            plot_text(note),
            _point(run),
            xytext=shift,
            textcoords="offset points",
            fontsize=NOTE_SIZE - 0.5,
            color=MUTED,
            zorder=4,
        )


def _in_points(axes: Axes, run: Record) -> tuple[float, float]:
    # The layout is not known before the figure is drawn; its usual size is close enough to keep notes apart.
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    size, value = _point(run)
    return AXES_POINTS[0] * (size - left) / (right - left), AXES_POINTS[1] * (value - bottom) / (top - bottom)


def _box(point: Pair, shift: Pair, width: float) -> Box:
    left, bottom = point[0] + shift[0], point[1] + shift[1]
    return left, bottom, left + width, bottom + NOTE_SIZE


def _is_free(point: Pair, shift: Pair, width: float, taken: list[Box]) -> bool:
    left, bottom, right, top = _box(point, shift, width)
    if left < 0 or right > AXES_POINTS[0] or bottom < 0:
        return False
    return all(right <= box[0] or left >= box[2] or top <= box[1] or bottom >= box[3] for box in taken)
