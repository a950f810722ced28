"""The look that all plots share, set on each figure: matplotlib's global state is left as it is."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from PIL import Image

from corank.errors import ConfigError
from corank.reports.fields import Record, clean, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "COLOUR_NAMES",
    "GREEN",
    "GREY",
    "GRID",
    "INK",
    "LABEL_SIZE",
    "MUTED",
    "NOTE_SIZE",
    "ORANGE",
    "PAGE_INCHES",
    "PALETTE",
    "PURPLE",
    "SOFT",
    "TITLE_SIZE",
    "VERMILION",
    "add_legend",
    "bits_colour",
    "bits_label",
    "image_bytes",
    "label_layers",
    "layers_height",
    "new_figure",
    "plot_text",
    "set_title",
    "shorten",
    "style_axes",
]

WIDTH_INCHES = 5.2
# Narrow, so that a phone need not shrink the picture, and its text, to fit its screen.
PAGE_INCHES = 4.4
TITLE_SIZE = 11
LABEL_SIZE = 10
NOTE_SIZE = 8.5
MOST_NAMED_LAYERS = 60
LEGEND_MARGIN = 50  # points left of the axes, where a legend begins

INK, MUTED, SOFT, GREY, GRID = "#1b1f24", "#57606a", "#868f99", "#b6bec7", "#e3e7eb"
# After Okabe and Ito, whose colours people with any colour vision tell apart; darker where white would swallow them.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#00875f", "#b0558a", "#b17300", "#2a86c4"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
# Names under which a page may give each of them other values, for dark screens.
COLOUR_NAMES = MappingProxyType(
    {
        INK: "ink", MUTED: "muted", SOFT: "soft", GREY: "grey", GRID: "grid", BLUE: "blue", VERMILION: "vermilion",
        GREEN: "green", PURPLE: "purple", ORANGE: "orange", SKY: "sky", "#ffffff": "card",
    }
)  # fmt: skip
BITS_COLOURS = MappingProxyType({1: MUTED, 2: ORANGE, 3: BLUE, 4: GREEN, 8: PURPLE})


def new_figure(height_inches: float, width_inches: float = WIDTH_INCHES, fitted: bool = True) -> Figure:
    """An empty figure on a white background; if `fitted`, its axes make room for their texts when it is drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'corank[report]'") from error
    return Figure(figsize=(width_inches, height_inches), facecolor="white", layout="constrained" if fitted else None)


def image_bytes(figure: Figure, kind: str = "png", dots_per_inch: int = 180) -> bytes:
    """The figure as the bytes of a "png" (of 128 colours, to be small) or "svg" file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in a script that the font lacks are drawn as boxes, which is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        if kind == "svg":
            figure.savefig(buffer, format="svg")
        else:
            _save_png(figure, buffer, dots_per_inch)
    return buffer.getvalue()


def _save_png(figure: Figure, buffer: io.BytesIO, dots_per_inch: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dots_per_inch)
    # Figure.savefig would lay the figure out and draw it twice, which takes most of a report's time.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
    # The other methods lose the colour of a legend's entry in a tall picture.
    image.quantize(colors=128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        buffer, format="PNG", dpi=(dots_per_inch, dots_per_inch)
    )


def style_axes(axes: Axes, title: str, x_label: str, y_label: str, grid: str = "both") -> None:
    """Title on the left, muted ticks, a light grid behind the data along "x", "y" or "both"."""
    set_title(axes, title)
    axes.set_xlabel(x_label, fontsize=LABEL_SIZE, color=INK)
    axes.set_ylabel(y_label, fontsize=LABEL_SIZE, color=INK)
    axes.tick_params(which="both", labelsize=LABEL_SIZE - 1, colors=MUTED, labelcolor=INK, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if grid in (name, "both"):
            axis.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def set_title(axes: Axes, title: str, pad: float = 8.0) -> None:
    """Put a bold title above the axes, on the left, `pad` points away."""
    axes.set_title(title, loc="left", pad=pad, fontsize=TITLE_SIZE, color=INK, fontweight="bold")


def add_legend(axes: Axes, columns: int) -> None:
    """A legend above the data, one entry for each labelled artist; none where nothing is labelled.

    In ``columns`` columns, or as many as fit the figure's width.
    """
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        room = 72 * axes.figure.bbox.width / axes.figure.dpi - LEGEND_MARGIN
        while columns > 1 and _legend_width(labels, columns) > room:
            columns -= 1
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=columns,
            frameon=False,
            fontsize=NOTE_SIZE,
            labelcolor=INK,
            handlelength=1.4,
            columnspacing=1.2,
            borderaxespad=0.1,
        )
        # The title makes room for the legend, which stands between it and the data.
        lines = -(-len(labels) // columns)
        set_title(axes, axes.get_title(loc="left"), pad=8 + 15 * lines)


def _legend_width(labels: list[str], columns: int) -> float:
    """About how many points wide; columns are filled one after the other, the first ones with one line more."""
    long, more = divmod(len(labels), columns)
    sizes = [long + (place < more) for place in range(columns)]
    starts = [sum(sizes[:place]) for place in range(columns)]
    widths = [max(map(len, labels[at : at + size]), default=0) for at, size in zip(starts, sizes, strict=True)]
    return sum(0.6 * NOTE_SIZE * width + 3.4 * NOTE_SIZE for width in widths)


def plot_text(value: str) -> str:
    """`value` as matplotlib shows it literally: no mathematics, one line, never left out of a legend."""
    shown = clean(value).replace("\n", " ").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def shorten(name: str, limit: int = 22) -> str:
    """A long name with its middle left out: its end tells layers apart, its start says where they are."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def layers_height(count: int) -> float:
    """Height in inches of a plot with one line per layer."""
    return 1.3 + 0.2 * min(max(count, 3), MOST_NAMED_LAYERS)


def label_layers(axes: Axes, names: Sequence[str]) -> None:
    """Put the network's first layer on top and name the lines; in long networks only every n-th."""
    step = max(1, -(-len(names) // MOST_NAMED_LAYERS))
    places = list(range(0, len(names), step))
    axes.set_yticks(places, [plot_text(shorten(names[place])) for place in places], fontsize=NOTE_SIZE)
    axes.set_ylim(len(names) - 0.4, -0.6)


def bits_label(layer: Record) -> str:
    """How many bits a layer's codes have, such as "3 bits"; "float" where it has none."""
    bits = number(layer, "bits")
    return "float" if bits is None else f"{bits:g} bit" if bits == 1 else f"{bits:g} bits"


def bits_colour(layer: Record) -> str:
    """The colour that stands for a layer's bits in every plot."""
    bits = number(layer, "bits")
    return GREY if bits is None else BITS_COLOURS.get(round(bits), SKY)
