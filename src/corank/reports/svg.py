"""Figures as small SVG elements that stand in a page and take their colours and letters from it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from corank.reports.plots.style import COLOUR_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NO_POINTS", "colour_rules", "svg_element"]

Attributes = dict[str, str]

XLINK = "{http://www.w3.org/1999/xlink}href"
# Everything else that a figure's file may hold (clips, metadata, styles) is left out.
KEPT = MappingProxyType(
    {
        "path": ("d", "id", "transform"),
        "use": ("x", "y"),
        "text": ("x", "y", "transform"),
        "tspan": ("x", "y"),
    }
)
STYLES = (
    "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "stroke-opacity", "fill-opacity", "font-size",
    "font-weight", "text-anchor",
)  # fmt: skip
USUAL = MappingProxyType({"stroke-linecap": "butt", "text-anchor": "start", "stroke-dasharray": "none"})
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
FONT = re.compile(r"(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+)px")
NO_POINTS: Mapping[str, str] = MappingProxyType({})
HIT = 8  # typographic points around a marker
TURNED = re.compile(r"rotate\(-?0 [^)]*\)")


def svg_element(figure: Figure, name: str, description: str, points: Mapping[str, str] = NO_POINTS) -> str:
    """The figure as one `<svg>` element without scripts, styles, links or fixed size.

    Colours are the classes of `colour_rules`; letters are those of the page, in units of a typographic point of the
    figure.

    Args:
        figure: of plots.style.
        name: letters and digits, of no other picture of the page.
        description: what it shows, for who does not see it.
        points: by the `gid` of a marker, which is the id of what it stands for in the page, what it is called; each is
            a link there.
    """
    root = ElementTree.fromstring(_file(figure))
    width, height = (_short(root.get(side, "0").removesuffix("pt")) for side in ("width", "height"))
    inner = "".join(_elements(root, name, points))
    # Of an image nothing can be chosen.
    role, label = "group" if points else "img", escape(" ".join(description.split()))
    return f'<svg role="{role}" aria-label="{label}" viewBox="0 0 {width} {height}">{inner}</svg>'


def colour_rules() -> str:
    """CSS of the colours' classes: each takes the custom property of its name."""
    names = COLOUR_NAMES.values()
    return "\n".join(f".f-{name} {{ fill: var(--{name}); }} .s-{name} {{ stroke: var(--{name}); }}" for name in names)


def _file(figure: Figure) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "corank"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # Figure.savefig would lay the figure out twice, which takes most of a report's time.
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    return buffer.getvalue()


def _elements(parent: ElementTree.Element, name: str, points: Mapping[str, str] = NO_POINTS) -> Iterator[str]:
    for element in parent:
        tag = _tag(element)
        if tag == "g" and element.get("id") in points:
            yield _point(element, name, points)
        elif tag == "g":
            yield from _elements(element, name, points)
        elif tag == "defs":
            markers = "".join(_elements(element, name))
            yield f"<defs>{markers}</defs>" if markers else ""
        elif tag in KEPT:
            style = _style(element)
            if not _is_background(style):
                attributes = "".join(f' {key}="{escape(value)}"' for key, value in _kept(element, style, name).items())
                inner = escape(element.text or "", quote=False) + "".join(_elements(element, name))
                yield f"<{tag}{attributes}>{inner}</{tag}>" if inner else f"<{tag}{attributes}/>"


def _point(element: ElementTree.Element, name: str, points: Mapping[str, str]) -> str:
    """A marker as a link, and around it what a finger can hit."""
    target = element.get("id", "")
    marks = [mark for mark in element.iter() if _tag(mark) == "use"]
    around = "".join(
        f'<circle class="hit" cx="{_short(mark.get("x", "0"))}" cy="{_short(mark.get("y", "0"))}" r="{HIT}"/>'
        for mark in marks
    )
    inner = "".join(_elements(element, name))
    return f'<a class="point" href="#{escape(target)}" aria-label="{escape(points[target])}">{around}{inner}</a>'


def _kept(element: ElementTree.Element, style: Mapping[str, str], name: str) -> Attributes:
    found: Attributes = {}
    for key in KEPT[_tag(element)]:
        value = element.get(key)
        if value is not None:
            found[key] = f"{name}-{value}" if key == "id" else _path(value) if key == "d" else _short(value)
    target = element.get(XLINK)
    if target is not None:
        found["href"] = f"#{name}-{target.removeprefix('#')}"
    found["transform"] = TURNED.sub("", found.get("transform", "")).strip()
    classes = []
    for property_, letter in (("fill", "f"), ("stroke", "s")):
        value = style.get(property_, "")
        if value in COLOUR_NAMES:
            classes.append(f"{letter}-{COLOUR_NAMES[value]}")
        else:
            found[property_] = value
    found["class"] = " ".join(classes)
    found.update({key: _short(style[key]) for key in STYLES if style.get(key, USUAL.get(key)) != USUAL.get(key)})
    return {key: value for key, value in found.items() if value}


def _style(element: ElementTree.Element) -> dict[str, str]:
    parts = (part.partition(":") for part in element.get("style", "").split(";"))
    style = {key.strip(): value.strip() for key, _, value in parts if value}
    font = FONT.match(style.pop("font", ""))
    if font is not None:
        style["font-size"] = font["size"]
        if font["weight"]:
            style["font-weight"] = font["weight"]
    if "font-size" in style:
        style["font-size"] = style["font-size"].removesuffix("px")
    return style


def _is_background(style: Mapping[str, str]) -> bool:
    return COLOUR_NAMES.get(style.get("fill", "")) == "card" and style.get("stroke", "none") == "none"


def _short(value: str) -> str:
    """Numbers with one decimal."""
    return NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), value)


def _path(data: str) -> str:
    """A path's data with one decimal, and level and upright lines as what they are."""
    drawn: list[str] = []
    here = ("", "")
    for letter, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", _short(data)):
        points = tuple(numbers.split())
        there = points[-2:] if len(points) >= 2 else here
        if letter != "L":
            drawn.append(letter + " ".join(points))
        elif there[1] == here[1]:
            drawn.append(f"H{there[0]}")
        else:
            drawn.append(f"V{there[1]}" if there[0] == here[0] else "L" + " ".join(there))
        here = there
    return "".join(drawn)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
