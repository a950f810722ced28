"""What a network sees of an image: bands of frequencies, of the float network and the quantized one side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corank.reports.fields import Record, number, numbers
from corank.reports.plots.style import (
    BLUE,
    GREY,
    INK,
    LABEL_SIZE,
    NOTE_SIZE,
    PAGE_INCHES,
    VERMILION,
    add_legend,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "RIGHT_CAPTION",
    "SHARE_CAPTION",
    "can_draw",
    "describe",
    "describe_right",
    "draw",
    "draw_right",
    "lost",
    "side",
]

SHARE_CAPTION = (
    "An image is the sum of eight bands: band 1 has its large smooth shapes, band 8 its finest detail. A bar is how "
    "much of what the image tells the network comes from that band: its Shapley value, over all 256 sets of bands, as "
    "a share of the whole. Below zero a band misleads more than it helps. Whiskers are standard errors."
)
RIGHT_CAPTION = (
    "How often the network is right when it is shown the first bands alone, from no band (a grey image) to all of "
    "them. Where the red line is below the blue one, the quantized network makes less of what it is shown."
)
INCHES = 3.1


def side(found: Record, key: str) -> Record:
    """What was found of the "float" or the "quantized" network."""
    part = found.get(key)
    return part if isinstance(part, dict) else {}


def can_draw(found: Record) -> bool:
    """Whether both networks have a value for each band."""
    counts = {len(numbers(side(found, key), "share")) for key in ("float", "quantized")}
    return len(counts) == 1 and counts.pop() > 1


def describe(found: Record) -> str:
    """What the picture shows, in words."""
    parts = []
    for key in ("float", "quantized"):
        shares = numbers(side(found, key), "share")
        parts.append(f"{key}: " + ", ".join(f"{100 * share:.0f} %" for share in shares))
    return "Share of each band of frequencies, coarse to fine. " + "; ".join(parts) + "."


def draw(found: Record) -> Figure:
    """Two bars for each band, float and quantized."""
    figure = new_figure(INCHES, PAGE_INCHES)
    axes = figure.subplots()
    for key, colour, shift in (("float", BLUE, -0.2), ("quantized", VERMILION, 0.2)):
        own = side(found, key)
        shares, errors, values = numbers(own, "share"), numbers(own, "error"), numbers(own, "importance")
        total = abs(sum(values)) or 1.0
        places = [band + 1 + shift for band in range(len(shares))]
        axes.bar(places, [100 * share for share in shares], width=0.38, color=colour, label=key)
        whiskers = [100 * error / total for error in errors] if len(errors) == len(shares) else None
        axes.errorbar(places, [100 * share for share in shares], whiskers, fmt="none", ecolor=GREY, elinewidth=1.1)
    axes.axhline(0, color=INK, linewidth=0.8)
    style_axes(axes, "What the networks look at", "", "share of the whole (%)", grid="y")
    _label_bands(axes, len(numbers(side(found, "float"), "share")), 1)
    add_legend(axes, columns=2)
    return figure


def describe_right(found: Record) -> str:
    """What the second picture shows, in words."""
    parts = []
    for key in ("float", "quantized"):
        right = numbers(side(found, key), "right")
        parts.append(f"{key}: " + ", ".join(f"{value:.0f} %" for value in right))
    return "How often each network is right with the first bands alone, none to all. " + "; ".join(parts) + "."


def draw_right(found: Record) -> Figure:
    """A line for each network over the number of bands that it is shown."""
    figure = new_figure(INCHES, PAGE_INCHES)
    axes = figure.subplots()
    for key, colour, marker in (("float", BLUE, "o"), ("quantized", VERMILION, "D")):
        right = numbers(side(found, key), "right")
        axes.plot(range(len(right)), right, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=key)
    style_axes(axes, "Right answers from blurred images", "", "right (%)")
    axes.set_ylim(0, 103)
    _label_bands(axes, len(numbers(side(found, "float"), "right")), 0)
    axes.set_xlabel("bands that are shown, coarse ones first", fontsize=LABEL_SIZE, color=INK)
    add_legend(axes, columns=2)
    return figure


def lost(found: Record) -> float | None:
    """Nats of log-probability that the quantized network loses on whole images."""
    before, after = number(side(found, "float"), "all"), number(side(found, "quantized"), "all")
    return None if before is None or after is None else before - after


def _label_bands(axes: Axes, count: int, first: int) -> None:
    names = [str(first + place) for place in range(count)]
    if first:
        names[0], names[-1] = f"{names[0]}\ncoarse", f"{names[-1]}\nfine"
    axes.set_xticks(range(first, first + count), names, fontsize=NOTE_SIZE)
    if first:
        axes.set_xlabel("band of frequencies", fontsize=LABEL_SIZE, color=INK)
