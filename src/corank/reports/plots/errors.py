"""The relative output error of each layer, with the fragile ones marked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots.style import (
    BLUE,
    GREY,
    INK,
    MUTED,
    PAGE_INCHES,
    VERMILION,
    add_legend,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw", "fragile_layers", "fragile_limit"]

FRAGILE_TIMES = 2.0


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has a relative output error."""
    return bool(_measured(run))


def fragile_limit(errors: Sequence[float]) -> float:
    """A layer whose error is above this, twice the median of `errors`, is called fragile."""
    return FRAGILE_TIMES * median(errors) if errors else 0.0


def fragile_layers(run: Record) -> list[tuple[Record, float]]:
    """The layers whose error is over the limit, worst first, each with its error over the median."""
    layers = _measured(run)
    errors = [number(layer, "relative_output_error") or 0.0 for layer in layers]
    limit = fragile_limit(errors)
    found = [(layer, error) for layer, error in zip(layers, errors, strict=True) if error > limit]
    middle = limit / FRAGILE_TIMES
    return [(layer, error / middle if middle > 0 else float("inf")) for layer, error in sorted(found, key=_last)[::-1]]


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    errors = {layer_name(layer): 100 * (number(layer, "relative_output_error") or 0.0) for layer in _measured(run)}
    most = max(errors, key=errors.__getitem__)
    return (
        f"Relative output errors of {len(errors)} layers: median {median(errors.values()):.3g} %, at most "
        f"{errors[most]:.3g} % in {most}; {len(fragile_layers(run))} are over {FRAGILE_TIMES:g} times the median."
    )


def draw(run: Record) -> Figure:
    """One dot per layer, first on top: mean |y - y_q|^2 over mean |y|^2 in percent.

    Fragile layers, above `fragile_limit`, are diamonds of another colour.
    """
    layers = _measured(run)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    errors = [100 * (number(layer, "relative_output_error") or 0.0) for layer in layers]
    limit = fragile_limit(errors)
    fragile = [place for place, error in enumerate(errors) if error > limit]
    steady = [place for place, error in enumerate(errors) if error <= limit]
    axes.hlines(range(len(layers)), 0, errors, color=GREY, linewidth=1.4)
    axes.scatter([errors[place] for place in steady], steady, s=30, color=BLUE, marker="o", zorder=3)
    axes.scatter(
        [errors[place] for place in fragile],
        fragile,
        s=44,
        color=VERMILION,
        marker="D",
        label=f"over {FRAGILE_TIMES:g}x the median",
        zorder=3,
    )
    if errors:
        axes.axvline(limit / FRAGILE_TIMES, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label="median")
    style_axes(axes, "Output error per layer", "relative output error (%)", "", grid="x")
    axes.set_xlim(0, max([*errors, 1e-9]) * 1.08)
    label_layers(axes, [layer_name(layer) for layer in layers])
    for tick, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=False):
        tick.set_color(VERMILION if int(place) in fragile else INK)
    add_legend(axes, columns=2)
    return figure


def _last(pair: tuple[Record, float]) -> float:
    return pair[1]


def _measured(run: Record) -> list[Record]:
    return [layer for layer in entries(run, "layers") if number(layer, "relative_output_error") is not None]
