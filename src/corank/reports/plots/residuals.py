"""What quantization leaves of each layer's norm, before the adapter and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number
from corank.reports.plots.style import (
    BLUE,
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

__all__ = ["CAPTION", "can_draw", "describe", "draw"]

CAPTION = (
    "The largest error that coding makes anywhere in a layer, over the most that the layer itself does: norms of the "
    "operators on the layer's own input size. The adapter takes away the part between the two dots. By Weyl's "
    "inequality no singular value of the layer moved further than the blue dot."
)


def can_draw(found: Record) -> bool:
    """Whether a residual's norm is known."""
    return bool(_known(found))


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    known = _known(found)
    name, _, after = max(known, key=lambda one: one[2])
    helped = sum(after < 0.99 * before for _, before, after in known)
    return (
        f"Residuals' norms over the weights' of {len(known)} layers: at most {after:.1f} % in {name}; adapters lower "
        f"{helped}."
    )


def draw(found: Record) -> Figure:
    """Two dots for each layer and a line between them."""
    known = _known(found)
    figure = new_figure(layers_height(len(known)), PAGE_INCHES)
    axes = figure.subplots()
    places = list(range(len(known)))
    axes.hlines(places, [after for _, _, after in known], [before for _, before, _ in known], color=GREY, linewidth=2.2)
    adapted = any(after != before for _, before, after in known)
    if adapted:
        axes.scatter([before for _, before, _ in known], places, s=26, color=ORANGE, zorder=3, label="codes alone")
    label = "with the adapter" if adapted else "as coded"
    axes.scatter([after for _, _, after in known], places, s=30, color=BLUE, zorder=4, label=label)
    style_axes(axes, "What coding leaves wrong", "residual's norm over the weight's (%)", "", grid="x")
    axes.set_xlim(0, max(max(before, after) for _, before, after in known) * 1.08)
    label_layers(axes, [name for name, _, _ in known])
    add_legend(axes, columns=2)
    return figure


def _known(found: Record) -> list[tuple[str, float, float]]:
    """Name, and residual before and after the adapter in percent."""
    rows = []
    for layer in entries(found, "layers"):
        norm, after = number(layer, "norm"), number(layer, "residual")
        before = number(layer, "residual_before")
        if norm and after is not None and before is not None:
            rows.append((layer_name(layer), 100 * before / norm, 100 * after / norm))
    return rows
