"""Accuracy against file size of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from corank.reports.cells import is_nats, show_bytes, show_value, unit_of
from corank.reports.fields import Record, number, run_label
from corank.reports.plots.style import (
    INK,
    MUTED,
    NOTE_SIZE,
    PAGE_INCHES,
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

__all__ = ["can_draw", "describe", "draw", "family", "named_points"]

MARKERS = "osD^vP"
MOST_NOTED_RUNS = 16
MOST_FLOAT_LINES = 4
LEAST_POINTS = 2.0
AXES_POINTS = (270.0, 225.0)
GAP = 2.0  # points between notes side by side

Pair = tuple[float, float]
Box = tuple[float, float, float, float]


def can_draw(runs: Sequence[Record]) -> bool:
    """Whether there are two points: runs that know accuracy and file size, or one of them and its float network."""
    rated = _rated(runs)
    return len(rated) > 1 or any(_float_point(run) is not None for run in rated)


def describe(runs: Sequence[Record]) -> str:
    """What the picture shows, in words."""
    said = [
        f"{run_label(run)}: {show_value(run, 'quantized_value')} in {show_bytes(number(run, 'stored_bytes'))}"
        for run in _rated(runs)
    ]
    floats = [
        f"float: {show_value(run, 'float_value')} in {show_bytes(number(run, 'float_bytes'))}"
        for run in _rated(runs)
        if _float_point(run) is not None
    ]
    return "; ".join([*said, *dict.fromkeys(floats)]) + "."


def family(label: str) -> str:
    """The method that a label names: its words before the first one with a digit ("fast 3+0.2" is "fast")."""
    words: list[str] = []
    for word in label.split():
        if any(letter.isdigit() for letter in word):
            break
        words.append(word)
    return " ".join(words) or label


def draw(runs: Sequence[Record]) -> Figure:
    """One point per run, size in KB (1000 bytes), accuracy in percent (or nats); one colour and marker per family.

    Of several, each marker has the id ``run-N``, N being the run's place among ``runs``. A single run stands beside a
    point for its float network, over a logarithmic axis.
    """
    figure = new_figure(3.7, PAGE_INCHES)
    axes = figure.subplots()
    rated = _rated(runs)
    names = list(dict.fromkeys(family(run_label(run)) for run in rated))
    for place, name in enumerate(names):
        _draw_family(axes, place, name, [run for run in rated if family(run_label(run)) == name])
    for place, run in named_points(runs):
        _draw_markers(axes, names.index(family(run_label(run))), [_point(run)], gid=f"run-{place}", linestyle="")
    title = "Nats per token against file size" if any(map(is_nats, rated)) else "Accuracy against file size"
    style_axes(axes, title, "file size (KB, 1000 bytes)", unit_of(runs))
    axes.yaxis.label.set_text(plot_text(axes.yaxis.label.get_text()))
    axes.margins(x=0.13, y=0.09)
    _draw_float_lines(axes, rated)
    if rated and not any(map(is_nats, rated)):
        _limit_values(axes)
    if len(rated) == 1:
        _draw_float_point(axes, _float_point(rated[0]))
    if len(rated) <= MOST_NOTED_RUNS:
        _note_runs(axes, rated)
    add_legend(axes, columns=min(4, max(1, len(names))))
    return figure


def named_points(runs: Sequence[Record]) -> list[tuple[int, Record]]:
    """The runs whose points can be chosen, with their places; none where there is but one point."""
    rated = _rated(runs)
    return (
        [(place, run) for place, run in enumerate(runs) if any(run is one for one in rated)] if len(rated) > 1 else []
    )


def _rated(runs: Sequence[Record]) -> list[Record]:
    """The quantized runs; the float network's own file would squeeze the rest, and its accuracy is a line."""
    known = [run for run in runs if None not in (number(run, "quantized_value"), number(run, "stored_bytes"))]
    return [run for run in known if number(run, "stored_bytes") != number(run, "float_bytes")]


def _point(run: Record) -> tuple[float, float]:
    return (number(run, "stored_bytes") or 0.0) / 1000, number(run, "quantized_value") or 0.0


def _float_point(run: Record) -> tuple[float, float] | None:
    value, size_bytes = number(run, "float_value"), number(run, "float_bytes")
    return None if value is None or size_bytes is None or size_bytes <= 0 else (size_bytes / 1000, value)


def _draw_float_point(axes: Axes, point: tuple[float, float] | None) -> None:
    if point is None:
        return
    axes.plot(*point, color=INK, marker="*", markersize=10, linestyle="", zorder=3, gid="float-point")
    left, right = axes.dataLim.x0, axes.dataLim.x1
    if left > 0:
        axes.set_xscale("log")
        ticks = [scale * 10**power for power in range(-3, 9) for scale in (1, 2, 5)]
        axes.set_xlim(left / 1.5, right * 1.5)
        axes.set_xticks([tick for tick in ticks if left / 1.5 <= tick <= right * 1.5])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()


def _draw_family(axes: Axes, place: int, name: str, runs: list[Record]) -> None:
    _draw_markers(axes, place, sorted(map(_point, runs)), label=plot_text(shorten(name, 22)), linewidth=1.2)


def _draw_markers(axes: Axes, place: int, points: list[Pair], **look: Any) -> None:
    axes.plot(
        [size for size, _ in points],
        [value for _, value in points],
        color=PALETTE[place % len(PALETTE)],
        marker=MARKERS[(place // len(PALETTE) + place) % len(MARKERS)],
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=3,
        **look,
    )


def _draw_float_lines(axes: Axes, runs: list[Record]) -> None:
    known = {number(run, "float_value"): run for run in reversed(runs)}
    floats = [(value, run) for value, run in reversed(known.items()) if value is not None]
    for value, run in floats[:MOST_FLOAT_LINES]:
        size_bytes = number(run, "float_bytes")
        size = "" if size_bytes is None else f", {show_bytes(size_bytes)}"
        label = plot_text(f"float {value:.3f}{size}" if is_nats(run) else f"float {value:.1f} %{size}")
        axes.axhline(value, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), gid="float", label=label)


def _limit_values(axes: Axes) -> None:
    """At least two points high, and hardly above 100 % where nothing is."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    spare = max(0.0, LEAST_POINTS - (high - low)) / 2 + 0.09 * max(high - low, LEAST_POINTS)
    ceiling = 100 + 0.03 * (high - low + spare) if high <= 100 else high + spare
    axes.set_ylim(low - spare, min(high + spare, ceiling))


def _note_runs(axes: Axes, runs: list[Record]) -> None:
    axes.autoscale_view()
    points = [_in_points(axes, _point(run)) for run in runs]
    taken = [(x - 4.0, y - 4.0, x + 4.0, y + 4.0) for x, y in points]
    floats = [_in_points(axes, (0.0, value))[1] for run in runs if (value := number(run, "float_value")) is not None]
    taken += [(0.0, y - 1.5, AXES_POINTS[0], y + 1.5) for y in dict.fromkeys(floats)]
    for run, (x, y) in zip(runs, points, strict=True):
        label = run_label(run)
        note = shorten(label[len(family(label)) :].strip(), 12)
        width = 6.0 * len(note)
        places = [
            (6.0, -11.0),
            (6.0, 3.0),
            (-width - 6, 3.0),
            (-width - 6, -11.0),
            (-width / 2, 8.0),
            (-width / 2, -16.0),
        ]
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


def _in_points(axes: Axes, point: Pair) -> Pair:
    # The layout is not known before the figure is drawn; its usual size is close enough to keep notes apart.
    across, up = axes.transAxes.inverted().transform(axes.transData.transform(point))
    return AXES_POINTS[0] * float(across), AXES_POINTS[1] * float(up)


def _box(point: Pair, shift: Pair, width: float) -> Box:
    left, bottom = point[0] + shift[0], point[1] + shift[1]
    return left, bottom, left + width, bottom + NOTE_SIZE


def _is_free(point: Pair, shift: Pair, width: float, taken: list[Box]) -> bool:
    left, bottom, right, top = _box(point, shift, width)
    if left < 0 or right > AXES_POINTS[0] or bottom < 0:
        return False
    left, right = left - GAP, right + GAP
    return all(right <= box[0] or left >= box[2] or top <= box[1] or bottom >= box[3] for box in taken)
