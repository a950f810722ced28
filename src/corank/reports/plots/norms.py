"""How much each layer can stretch a change of its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots.style import (
    GREY,
    MUTED,
    PAGE_INCHES,
    PURPLE,
    add_legend,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CAPTION", "can_draw", "describe", "draw"]

CAPTION = (
    "The norm of each layer as an operator on its own input size, found by products with it and its transpose. The "
    "tick is a bound that it cannot exceed, the ring the norm of the kernel as a plain matrix, which says too little. "
    "A large norm alone is no harm: compare the first picture."
)


def can_draw(found: Record) -> bool:
    """Whether a layer's norm is known."""
    return bool(_known(found))


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    known = {layer_name(layer): number(layer, "norm") or 0.0 for layer in _known(found)}
    most = max(known, key=known.__getitem__)
    return f"Operator norms of {len(known)} layers; the largest is {known[most]:.3g}, of {most}."


def draw(found: Record) -> Figure:
    """A dot for the norm, a tick for its bound and a ring for the reshaped kernel's, one line a layer."""
    layers = _known(found)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    places = list(range(len(layers)))
    values = [number(layer, "norm") or 0.0 for layer in layers]
    bounds = [number(layer, "bound") or value for layer, value in zip(layers, values, strict=True)]
    plain = [number(layer, "reshaped_norm") or value for layer, value in zip(layers, values, strict=True)]
    axes.hlines(places, plain, bounds, color=GREY, linewidth=1.4)
    axes.scatter(plain, places, s=22, facecolors="none", edgecolors=MUTED, zorder=3, label="kernel as a matrix")
    axes.scatter(bounds, places, s=60, color=MUTED, marker="|", zorder=3, label="bound")
    axes.scatter(values, places, s=30, color=PURPLE, zorder=4, label="norm")
    style_axes(axes, "How much a layer can stretch", "norm of the operator", "", grid="x")
    _in_decades(axes, min([*plain, *values]), max([*bounds, *values]))
    label_layers(axes, [layer_name(layer) for layer in layers])
    add_legend(axes, columns=3)
    return figure


def _in_decades(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis with numbers, also where it spans less than a power of ten."""
    low, high = max(low, 1e-9) / 1.3, max(high, 1e-9) * 1.3
    steps = (1, 2, 5) if high / low < 100 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 12) for step in steps]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _known(found: Record) -> list[Record]:
    return [layer for layer in entries(found, "layers") if (number(layer, "norm") or 0.0) > 0]
