"""How many weights of a layer take each code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corank.reports.fields import Record, entries, layer_name, number, numbers
from corank.reports.plots.panels import along_the_network, draw_panels
from corank.reports.plots.style import bits_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_draw", "describe", "draw"]

MOST_CODES = 256


def can_draw(run: Record) -> bool:
    """Whether a layer of the run has its codes counted."""
    return bool(_counted(run))


def describe(run: Record) -> str:
    """What the picture shows, in words."""
    shown = along_the_network(_counted(run))
    return "; ".join(f"{layer_name(layer)}: {_note(layer)}" for layer in shown) + "."


def draw(run: Record, names: Sequence[str] | None = None) -> Figure:
    """One panel per layer: the share of weights that take each code, in percent.

    `names` picks the layers; without it, at most eight are taken at even distances along the network.
    """
    return draw_panels(
        along_the_network(_counted(run), names), "How many weights take each code", "code", "weights (%)", _draw_panel
    )


def _counted(run: Record) -> list[Record]:
    return [layer for layer in entries(run, "layers") if sum(_counts(layer)) > 0]


def _counts(layer: Record) -> list[float]:
    counts = numbers(layer, "code_counts")
    return counts if 0 < len(counts) <= MOST_CODES and min(counts) >= 0 else []


def _note(layer: Record) -> str:
    entropy, bits = number(layer, "code_entropy"), number(layer, "bits")
    return "" if entropy is None or bits is None else f"entropy {entropy:.2f} of {bits:g} bits"


def _draw_panel(axes: Axes, layer: Record) -> str:
    counts = _counts(layer)
    total = sum(counts)
    edges = [place - 0.5 for place in range(len(counts) + 1)]
    shares = [100 * count / total for count in counts]
    axes.stairs(shares, edges, fill=True, color=bits_colour(layer), gid="codes")
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.locator_params(axis="x", integer=True, nbins=5)
    return _note(layer)
