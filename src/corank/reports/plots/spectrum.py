"""The spectrum of what quantization lost in a layer, and where the adapter cuts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots.style import (
    BLUE,
    GREY,
    INK,
    LABEL_SIZE,
    NOTE_SIZE,
    TITLE_SIZE,
    VERMILION,
    new_figure,
    plot_text,
    shorten,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "draw"]

MOST_PANELS = 8
MOST_VALUES = 64
COLUMNS = 2


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has a spectrum."""
    return bool(_with_spectrum(run))


def draw(run: Record, names: Sequence[str] | None = None) -> Figure:
    """One panel per layer: energy of each singular direction of the residual, split by the adapter's rank.

    Energies are shown in percent of the sum of those recorded, at most 64. `names` picks the layers; without
    it, at most eight are taken at even distances along the network.
    """
    layers = _choose(run, names)
    rows = max(1, -(-len(layers) // COLUMNS))
    figure = new_figure(0.7 + 1.45 * rows)
    figure.suptitle("Error spectrum and the cut", x=0.02, ha="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    for index, layer in enumerate(layers):
        _draw_panel(figure.add_subplot(rows, COLUMNS, index + 1), layer)
    figure.supxlabel("singular direction of the residual", fontsize=LABEL_SIZE, color=INK)
    figure.supylabel("share of the energy (%)", fontsize=LABEL_SIZE, color=INK)
    return figure


def _with_spectrum(run: Record) -> list[Record]:
    return [layer for layer in entries(run, "layers") if sum(numbers(layer, "spectrum")[:MOST_VALUES]) > 0]


def _choose(run: Record, names: Sequence[str] | None) -> list[Record]:
    layers = _with_spectrum(run)
    if names is not None:
        return [layer for layer in layers if layer.get("name") in names]
    if len(layers) <= MOST_PANELS:
        return layers
    last = len(layers) - 1
    return [layers[round(step * last / (MOST_PANELS - 1))] for step in range(MOST_PANELS)]


def _draw_panel(axes: Axes, layer: Record) -> None:
    energies = numbers(layer, "spectrum")[:MOST_VALUES]
    total = sum(energies)
    shares = [100 * energy / total for energy in energies]
    rank = min(int(number(layer, "rank") or 0), len(shares))
    directions = list(range(1, len(shares) + 1))
    axes.bar(directions[:rank], shares[:rank], width=1.0, color=BLUE, edgecolor="white", linewidth=0.3)
    axes.bar(directions[rank:], shares[rank:], width=1.0, color=GREY, edgecolor="white", linewidth=0.3)
    if rank:
        axes.axvline(rank + 0.5, color=VERMILION, linewidth=1.2)
    style_axes(axes, "", "", "", grid="y")
    name = plot_text(shorten(layer_name(layer), 24))
    note = f"rank {rank} covers {sum(shares[:rank]):.0f} %" if rank else "no adapter"
    axes.set_title(f"{name}\n{note}", loc="left", fontsize=NOTE_SIZE, color=INK, pad=3)
    axes.tick_params(labelsize=NOTE_SIZE - 0.5)
    axes.set_xlim(0.4, len(shares) + 0.6)
    axes.set_ylim(bottom=0)
