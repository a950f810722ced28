"""How many channels each layer kept when a network was pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from corank.reports.fields import Record, clean, numbers
from corank.reports.plots.style import (
    BLUE,
    GREY,
    MUTED,
    NOTE_SIZE,
    PAGE_INCHES,
    add_legend,
    label_layers,
    layers_height,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CAPTION", "can_draw", "describe", "draw", "kept_channels"]

CAPTION = "Output channels of each layer that lost some (heads, of attention): kept, and what went."
MOST_NOTED_LAYERS = 60

Kept = tuple[str, float, float]


def kept_channels(pruned: Record) -> list[Kept]:
    """Name, channels before and channels after of each layer that lost some."""
    channels = pruned.get("channels")
    given = channels if isinstance(channels, Mapping) else {}
    found = [(clean(str(name)) or "(model)", numbers(given, name)) for name in given]
    return [(name, pair[0], pair[1]) for name, pair in found if len(pair) == 2 and 0 <= pair[1] <= pair[0]]


def can_draw(pruned: Record) -> bool:
    """Whether a layer lost channels."""
    return bool(kept_channels(pruned))


def describe(pruned: Record) -> str:
    """What the picture shows, in words."""
    return "; ".join(f"{name}: {after:.0f} of {before:.0f} channels" for name, before, after in kept_channels(pruned))


def draw(pruned: Record) -> Figure:
    """One bar a layer, first on top: the share of its channels that is left."""
    layers = kept_channels(pruned)
    figure = new_figure(layers_height(len(layers)), PAGE_INCHES)
    axes = figure.subplots()
    places, shares = range(len(layers)), [100 * after / max(before, 1.0) for _, before, after in layers]
    axes.barh(places, shares, height=0.66, color=BLUE, label="kept")
    axes.barh(places, [100 - share for share in shares], left=shares, height=0.66, color=GREY, label="went")
    axes.set_xlim(0, 122)
    axes.set_xticks([0, 25, 50, 75, 100])
    style_axes(axes, "Channels along the network", "of its channels (%)", "", grid="x")
    label_layers(axes, [name for name, _, _ in layers])
    add_legend(axes, columns=2)
    for place, (_, before, after) in enumerate(layers if len(layers) <= MOST_NOTED_LAYERS else []):
        axes.annotate(f"{after:.0f} of {before:.0f}", (100, place), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=NOTE_SIZE, color=MUTED)  # fmt: skip
    return figure
