"""Whether straight-through gradients tell the truth: their slope over that of the mean loss, layer by layer."""

from __future__ import annotations

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

__all__ = ["CAPTION", "can_draw", "describe", "draw", "is_off", "measured"]

CAPTION = (
    "Straight-through training pretends that rounding has a slope of 1. Here its slope is divided by the true one, of "
    "the mean loss under random rounding, by finite differences. On the line it tells the truth; to the right it "
    "promises too much, to the left too little, left of 0 it goes the wrong way. Whiskers are standard errors; red is "
    "off by more than two of them."
)
WIDEST = 4.0


def measured(found: Record) -> list[Record]:
    """The layers whose true slope is seen above its noise, so that something can be a multiple of it."""
    return [
        layer
        for layer in entries(found, "layers")
        if number(layer, "ratio") is not None
        and number(layer, "ratio_error") is not None
        and abs(number(layer, "slope") or 0.0) > 2 * (number(layer, "slope_error") or 0.0)
    ]


def is_off(layer: Record) -> bool:
    """Whether the slopes differ by more than two standard errors."""
    bias, error = number(layer, "bias"), number(layer, "bias_error")
    return bias is not None and error is not None and abs(bias) > 2 * error


def can_draw(found: Record) -> bool:
    """Whether a layer has both slopes."""
    return bool(measured(found))


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    layers = measured(found)
    off = [layer_name(layer) for layer in layers if is_off(layer)]
    named = ", ".join(off[:6]) or "none"
    return f"Straight-through slopes over true ones of {len(layers)} layers; off in {len(off)}: {named}."


def draw(found: Record) -> Figure:
    """A dot and a whisker for each layer, first on top, and the line of truth."""
    layers = measured(found)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    places = range(len(layers))
    ratios = [max(-WIDEST, min(WIDEST, number(layer, "ratio") or 0.0)) for layer in layers]
    errors = [min(WIDEST, number(layer, "ratio_error") or 0.0) for layer in layers]
    axes.axvline(1, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="the truth")
    axes.errorbar(ratios, places, xerr=errors, fmt="none", ecolor=GREY, elinewidth=1.6)
    for off, colour, label in ((False, BLUE, "within two errors"), (True, VERMILION, "off")):
        own = [place for place in places if is_off(layers[place]) == off]
        if own:
            axes.scatter([ratios[place] for place in own], own, s=32, color=colour, zorder=3, label=label)
    style_axes(axes, "Straight-through against the truth", "straight-through slope over the true one", "", grid="x")
    low, high = min([0.0, *ratios]), max([2.0, *ratios])
    axes.set_xlim(low - 0.1, high + 0.1)
    label_layers(axes, [layer_name(layer) for layer in layers])
    for tick, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=False):
        tick.set_color(VERMILION if is_off(layers[int(place)]) else INK)
    add_legend(axes, columns=3)
    return figure
