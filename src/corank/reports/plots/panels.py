"""Small plots side by side, one for each of a few layers along the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, layer_name
from corank.reports.plots.style import (
    GREY,
    INK,
    LABEL_SIZE,
    MUTED,
    NOTE_SIZE,
    PAGE_INCHES,
    TITLE_SIZE,
    new_figure,
    plot_text,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["along_the_network", "draw_panels"]

MOST_PANELS = 8
COLUMNS = 2
PANEL_INCHES, TOP_INCHES, BOTTOM_INCHES = 1.2, 0.72, 0.55


def along_the_network(layers: Sequence[Record], names: Sequence[str] | None = None) -> list[Record]:
    """The layers called `names`; without names at most eight, at even distances, the first and the last among them."""
    if names is not None:
        return [layer for layer in layers if layer.get("name") in names]
    if len(layers) <= MOST_PANELS:
        return list(layers)
    last = len(layers) - 1
    return [layers[round(step * last / (MOST_PANELS - 1))] for step in range(MOST_PANELS)]


def draw_panels(
    layers: Sequence[Record], title: str, x_label: str, y_label: str, draw: Callable[[Axes, Record], str]
) -> Figure:
    """A panel for each layer, in the order of the network.

    `draw` fills the axes and returns the note that stands under the layer's name.
    """
    rows = max(1, -(-len(layers) // COLUMNS))
    height = TOP_INCHES + BOTTOM_INCHES + PANEL_INCHES * rows
    # Measuring every text to lay so many axes out would take longer than all the rest of a page.
    figure = new_figure(height, PAGE_INCHES, fitted=False)
    figure.subplots_adjust(
        left=0.115, right=0.985, bottom=BOTTOM_INCHES / height, top=1 - TOP_INCHES / height, hspace=0.75, wspace=0.24
    )
    figure.text(0.015, 1 - 0.22 / height, title, fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    for index, layer in enumerate(layers):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        note = draw(axes, layer)
        _style(axes, f"{plot_text(shorten(layer_name(layer)))}\n{note}")
    figure.text(0.55, 0.07 / height, x_label, fontsize=LABEL_SIZE, color=INK, ha="center")
    figure.text(0.012, 0.5, y_label, fontsize=LABEL_SIZE, color=INK, rotation=90, va="center")
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=NOTE_SIZE, color=INK, pad=3)
    axes.tick_params(labelsize=NOTE_SIZE - 0.5, colors=MUTED, labelcolor=INK, length=2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylim(bottom=0)
