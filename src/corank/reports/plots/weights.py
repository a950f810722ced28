"""How a layer's weights are spread, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, numbers
from corank.reports.plots.panels import along_the_network, draw_panels
from corank.reports.plots.style import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

MOST_BINS = 256


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has a histogram of its weights."""
    return bool(_counted(run))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    shown = along_the_network(_counted(run))
    return "; ".join(f"{layer_name(layer)}: {_note(layer)}" for layer in shown) + "."


def draw(run: Record, names: Sequence[str] | None = None) -> Figure:
    """One panel per layer: the stored network's weights, filled, and where they are known the float one's, as a line.

    Both are shares in percent, in equal bins over the range of the float weights. `names` picks the layers; without
    it, at most eight are taken at even distances along the network.
    """
    layers = along_the_network(_counted(run), names)
    return draw_panels(layers, "Weights as stored and in float", "weight", "weights (%)", _draw_panel)


def _counted(run: Record) -> list[Record]:
    return [layer for layer in entries(run, "layers") if _shares(layer, "coded_counts") and _range(layer)]


def _range(layer: Record) -> list[float]:
    found = numbers(layer, "weight_range")
    return found if len(found) == 2 and found[0] < found[1] and abs(found[0]) + abs(found[1]) < 1e30 else []


def _shares(layer: Record, key: str) -> list[float]:
    counts = numbers(layer, key)
    if not 0 < len(counts) <= MOST_BINS or min(counts) < 0 or sum(counts) <= 0:
        return []
    total = sum(counts)
    return [100 * count / total for count in counts]


def _note(layer: Record) -> str:
    low, high = _range(layer)
    return f"from {low:.2g} to {high:.2g}".replace("-", "−")


def _draw_panel(axes: Axes, layer: Record) -> str:
    low, high = _range(layer)
    for key, colour, filled in (("coded_counts", BLUE, True), ("float_counts", INK, False)):
        shares = _shares(layer, key)
        if shares:
            edges = [low + (high - low) * place / len(shares) for place in range(len(shares) + 1)]
            axes.stairs(shares, edges, fill=filled, color=colour, linewidth=0.0 if filled else 1.0, gid=key)
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=4)
    return _note(layer)
