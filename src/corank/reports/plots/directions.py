"""How many directions of its inputs a network needs: the interaction basis beside principal directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots.style import (
    GREEN,
    GREY,
    ORANGE,
    PAGE_INCHES,
    add_legend,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CURVE_CAPTION",
    "NEEDED_CAPTION",
    "can_draw",
    "can_draw_curve",
    "describe",
    "describe_curve",
    "draw",
    "draw_curve",
]

CURVE_CAPTION = (
    "All layers at once read only so many directions of their inputs. Green keeps those that what follows hangs on "
    "(the local interaction basis), orange those that vary most (principal directions). The higher line at few "
    "directions has found the ones that matter."
)
NEEDED_CAPTION = (
    "Directions that have 99 % of the importance, of each layer's inputs (grey: all there are). A short green bar is "
    "a layer that uses few of the channels it is given."
)
NAMES = (("interaction", "interaction basis", GREEN, "o"), ("principal", "principal directions", ORANGE, "D"))
INCHES = 3.1


def can_draw_curve(found: Record) -> bool:
    """Whether both curves are there."""
    count = len(numbers(found, "kept"))
    return count > 1 and all(len(numbers(found, key)) == count for key, *_ in NAMES)


def describe_curve(found: Record) -> str:
    """What the picture shows, in words."""
    kept = ", ".join(f"{100 * share:.0f} %" for share in numbers(found, "kept"))
    parts = [f"{name}: " + ", ".join(f"{value:.0f} %" for value in numbers(found, key)) for key, name, *_ in NAMES]
    return f"Right answers when {kept} of the directions are kept. {'; '.join(parts)}."


def draw_curve(found: Record) -> Figure:
    """Percent of right answers over the share of directions that is kept."""
    figure = new_figure(INCHES, PAGE_INCHES)
    axes = figure.subplots()
    kept = [100 * share for share in numbers(found, "kept")]
    for key, name, colour, marker in NAMES:
        axes.plot(kept, numbers(found, key), color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=name)
    style_axes(axes, "Right answers with fewer directions", "directions that are kept (%)", "right (%)")
    axes.set_ylim(0, 103)
    axes.set_xlim(0, 102)
    add_legend(axes, columns=2)
    return figure


def can_draw(found: Record) -> bool:
    """Whether a layer's directions are counted."""
    return bool(_counted(found))


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    layers = _counted(found)
    least = min(layers, key=lambda layer: (number(layer, "interaction") or 0.0) / (number(layer, "inputs") or 1.0))
    return (
        f"Directions that {len(layers)} layers need; fewest in {layer_name(least)}: "
        f"{number(least, 'interaction'):.0f} of {number(least, 'inputs'):.0f}."
    )


def draw(found: Record) -> Figure:
    """A bar for each layer, and behind it all inputs that it has; a mark for principal directions."""
    layers = _counted(found)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    places = list(range(len(layers)))
    axes.barh(
        places, [number(layer, "inputs") or 0 for layer in layers], height=0.72, color=GREY, alpha=0.45, label="inputs"
    )
    axes.barh(places, [number(layer, "interaction") or 0 for layer in layers], height=0.72, color=GREEN, label="used")
    marks = [number(layer, "principal") or 0 for layer in layers]
    axes.scatter(marks, places, s=26, color=ORANGE, marker="D", zorder=3, label="that vary")
    style_axes(axes, "How many directions each layer uses", "directions", "", grid="x")
    label_layers(axes, [layer_name(layer) for layer in layers])
    add_legend(axes, columns=3)
    return figure


def _counted(found: Record) -> list[Record]:
    return [layer for layer in entries(found, "layers") if number(layer, "interaction") and number(layer, "inputs")]
