"""Ranks found per layer, along the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots.style import (
    MUTED,
    NOTE_SIZE,
    PAGE_INCHES,
    add_legend,
    bits_colour,
    bits_label,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

MOST_NOTED_LAYERS = 60


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has an adapter."""
    return any((number(layer, "rank") or 0) > 0 for layer in entries(run, "layers"))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    ranks = {layer_name(layer): rank for layer in entries(run, "layers") if (rank := number(layer, "rank")) is not None}
    most = max(ranks, key=ranks.__getitem__)
    without = sum(rank <= 0 for rank in ranks.values())
    largest = f"the largest is {ranks[most]:g}, in {most}; " if ranks[most] > 0 else ""
    return f"Ranks of the adapters of {len(ranks)} layers; {largest}{without} have no adapter."


def draw(run: Record) -> Figure:
    """One bar per layer, first on top: the rank of its adapter; the colour says the layer's bits."""
    layers = entries(run, "layers")
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    ranks = [number(layer, "rank") or 0.0 for layer in layers]
    for bits in sorted({bits_label(layer) for layer in layers}):
        places = [place for place, layer in enumerate(layers) if bits_label(layer) == bits]
        axes.barh(
            places,
            [ranks[place] for place in places],
            height=0.66,
            color=bits_colour(layers[places[0]]),
            label=bits,
        )
    largest = max(ranks, default=0.0)
    axes.set_xlim(0, max(largest, 1.0) * 1.18)
    axes.locator_params(axis="x", integer=True)
    style_axes(axes, "Ranks along the network", "rank, of the most it could be", "", grid="x")
    label_layers(axes, [layer_name(layer) for layer in layers])
    add_legend(axes, columns=5)
    if len(layers) <= MOST_NOTED_LAYERS:
        _note_limits(axes, layers)
    return figure


def _note_limits(axes: Axes, layers: list[Record]) -> None:
    for place, layer in enumerate(layers):
        rank, limit = number(layer, "rank"), number(layer, "max_rank")
        note = "–" if rank is None else f"{rank:g}" if limit is None else f"{rank:g} of {limit:g}"
        axes.annotate(
            note,
            (rank or 0.0, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=NOTE_SIZE,
            color=MUTED,
        )
