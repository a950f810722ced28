"""What each layer stores, in bits per weight, beside what its codes could be coded in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots.style import (
    BLUE,
    INK,
    ORANGE,
    PAGE_INCHES,
    PURPLE,
    add_legend,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

PARTS = (("codes", BLUE), ("scales", ORANGE), ("adapter", PURPLE))


def can_draw(run: Record) -> bool:
    """Whether a layer of the run says what it stores."""
    return any(_bits(layer) for layer in entries(run, "layers"))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    totals = {layer_name(layer): sum(bits.values()) for layer in entries(run, "layers") if (bits := _bits(layer))}
    least, most = min(totals, key=totals.__getitem__), max(totals, key=totals.__getitem__)
    return (
        f"Stored bits per weight of {len(totals)} layers, from {totals[least]:.2f} in {least} to {totals[most]:.2f} "
        f"in {most}."
    )


def draw(run: Record) -> Figure:
    """One bar per layer, first on top, divided into codes, scales and adapter.

    Marks say the codes' entropy and, where the file holds coded codes, what all of the layer takes in it.
    """
    layers = entries(run, "layers")
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    stored = [_bits(layer) for layer in layers]
    starts = [0.0] * len(layers)
    for part, colour in PARTS:
        widths = [bits.get(part, 0.0) for bits in stored]
        axes.barh(range(len(layers)), widths, left=starts, height=0.66, color=colour, label=part, gid=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    marks = [
        (value, place) for place, layer in enumerate(layers) if (value := number(layer, "code_entropy")) is not None
    ]
    axes.scatter(
        [value for value, _ in marks], [place for _, place in marks], s=14, marker="D", color="white", edgecolor=INK,
        linewidth=0.9, label="entropy of the codes", zorder=3,
    )  # fmt: skip
    coded = [
        (value, place) for place, layer in enumerate(layers) if (value := _in_file(layer, starts[place])) is not None
    ]
    if coded:
        values, places = [value for value, _ in coded], [place for _, place in coded]
        axes.scatter(
            values, places, s=44, marker="|", color=INK, linewidth=1.4, label="all, as coded in the file", zorder=4
        )
    style_axes(axes, "Stored bits along the network", "bits per weight", "", grid="x")
    axes.set_xlim(0, max([*starts, 1e-9]) * 1.04)
    label_layers(axes, [layer_name(layer) for layer in layers])
    add_legend(axes, columns=2)
    return figure


def _in_file(layer: Record, stored: float) -> float | None:
    """Bits per weight that the layer takes in the file, where its codes are coded in less than their width."""
    value = number(layer, "file_bits_per_weight")
    return value if value is not None and 0 <= value < 0.995 * stored else None


def _bits(layer: Record) -> Mapping[str, float]:
    """Stored bits per weight of each part; empty where the record does not say."""
    stored, shape = layer.get("stored_bits"), numbers(layer, "shape")
    weights = math.prod(shape) if shape else 0
    if not isinstance(stored, Mapping) or not 0 < weights < 1e15:
        return {}
    found = {part: number(stored, part) for part, _ in PARTS}
    return {part: bits / weights for part, bits in found.items() if bits is not None and bits >= 0}
