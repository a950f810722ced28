"""Which layers hurt: what each does to the network's outputs when it alone is coded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots.style import (
    BLUE,
    GREY,
    INK,
    NOTE_SIZE,
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

__all__ = ["CAPTION", "can_draw", "describe", "draw", "total", "worst_first"]

CAPTION = (
    "How to read it: each bar is an experiment. One layer is coded, all others stay as they were, and the bar says "
    "how far the network's answers move. Long red bars are the layers to spare: give them more bits. Grey is what a "
    "layer would do without its adapter."
)
MOST_WORST = 3


def total(layers: Sequence[Record]) -> float:
    """The sum of what the layers do one by one."""
    return sum(max(0.0, number(layer, "harm") or 0.0) for layer in layers)


def worst_first(layers: Sequence[Record]) -> list[Record]:
    """At most three layers that do most, as long as each does more than twice its even share; the first always."""
    known = [layer for layer in layers if (number(layer, "harm") or 0.0) > 0]
    order = sorted(known, key=_harm)[::-1][:MOST_WORST]
    even = total(layers) / max(1, len(known))
    return [layer for place, layer in enumerate(order) if not place or _harm(layer) > 1.5 * even]


def can_draw(found: Record) -> bool:
    """Whether a layer does harm."""
    return total(entries(found, "layers")) > 0


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    layers = entries(found, "layers")
    parts = [f"{layer_name(layer)} {_harm(layer):.2g}" for layer in worst_first(layers)]
    return f"What each of {len(layers)} layers does to the outputs when it alone is coded. Most: {', '.join(parts)}."


def draw(found: Record) -> Figure:
    """A bar for each layer, first on top; the worst in another colour, with their share of the whole."""
    layers = [layer for layer in entries(found, "layers") if number(layer, "harm") is not None]
    worst, whole = worst_first(layers), total(layers)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    places = range(len(layers))
    before = [max(0.0, number(layer, "harm_before") or 0.0) for layer in layers]
    if any(more > _harm(layer) for more, layer in zip(before, layers, strict=True)):
        axes.barh(places, before, height=0.72, color=GREY, alpha=0.55, label="without its adapter")
    colours = [VERMILION if layer in worst else BLUE for layer in layers]
    axes.barh(places, [_harm(layer) for layer in layers], height=0.72, color=colours)
    axes.barh([0], [0], color=VERMILION, label="hurts most")
    longest = max([*before, *map(_harm, layers), 1e-12])
    for place, layer in enumerate(layers):
        if layer in worst:
            end = max(before[place], _harm(layer)) + 0.015 * longest
            axes.text(
                end, place, f"{100 * _harm(layer) / whole:.0f} %", va="center", fontsize=NOTE_SIZE, color=VERMILION
            )
    style_axes(axes, "Which layers hurt", "how far the answers move (nats)", "", grid="x")
    axes.set_xlim(0, longest * 1.14)
    label_layers(axes, [layer_name(layer) for layer in layers])
    for tick, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=False):
        tick.set_color(VERMILION if layers[int(place)] in worst else INK)
    add_legend(axes, columns=2)
    return figure


def _harm(layer: Record) -> float:
    return max(0.0, number(layer, "harm") or 0.0)
