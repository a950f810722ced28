"""The spectrum of what quantization lost in a layer, and where the adapter cuts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots.panels import along_the_network, draw_panels
from corank.reports.plots.style import BLUE, SOFT, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

MOST_VALUES = 64


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has a spectrum."""
    return bool(_with_spectrum(run))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    shown = along_the_network(_with_spectrum(run))
    return "; ".join(f"{layer_name(layer)}: {_note(layer)}" for layer in shown) + "."


def draw(run: Record, names: Sequence[str] | None = None) -> Figure:
    """One panel per layer: energy of each singular direction of the residual, split by the adapter's rank.

    Energies are shown in percent of the sum of those recorded, at most 64. `names` picks the layers; without
    it, at most eight are taken at even distances along the network.
    """
    layers = along_the_network(_with_spectrum(run), names)
    labels = "singular direction of the residual", "share of its energy (%)"
    return draw_panels(layers, "Error spectrum and the cut", *labels, _draw_panel)


def _with_spectrum(run: Record) -> list[Record]:
    return [layer for layer in entries(run, "layers") if sum(numbers(layer, "spectrum")[:MOST_VALUES]) > 0]


def _shares(layer: Record) -> tuple[list[float], int]:
    """Each direction's share of the energy in percent, and how many of them the adapter has."""
    energies = numbers(layer, "spectrum")[:MOST_VALUES]
    total = sum(energies)
    return [100 * energy / total for energy in energies], max(0, min(int(number(layer, "rank") or 0), len(energies)))


def _note(layer: Record) -> str:
    shares, rank = _shares(layer)
    return f"rank {rank} covers {sum(shares[:rank]):.0f} %" if rank else "no adapter"


def _draw_panel(axes: Axes, layer: Record) -> str:
    shares, rank = _shares(layer)
    edges = [place + 0.5 for place in range(len(shares) + 1)]
    if rank:
        axes.stairs(shares[:rank], edges[: rank + 1], fill=True, color=BLUE, gid="kept")
    if rank < len(shares):
        axes.stairs(shares[rank:], edges[rank:], fill=True, color=SOFT, gid="lost")
    if rank:
        axes.axvline(rank + 0.5, color=VERMILION, linewidth=1.2)
    axes.set_xlim(0.4, len(shares) + 0.6)
    axes.locator_params(axis="x", integer=True, nbins=5)
    return _note(layer)
