"""Pictures in a page are small, take its colours, and hold nothing but shapes and letters."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="plots need the extra `report`")

from corank.reports.plots import codes, errors, ranks
from corank.reports.plots.style import COLOUR_NAMES, new_figure
from corank.reports.svg import colour_rules, svg_element

HOSTILE = "<script>alert(1)</script>\"' onload=x &amp; ]]>"


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def test_the_texts_and_the_description_are_there(run: dict[str, Any]) -> None:
    root = parsed(svg_element(ranks.draw(run), "p1", "What\n it  shows"))
    assert root.get("role") == "img" and root.get("aria-label") == "What it shows"
    assert re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.get("viewBox") or "")
    assert root.get("width") is None and root.get("height") is None
    texts = [element.text for element in root.iter("text")]
    assert "Ranks along the network" in texts and "layer2.1.conv2" in texts and "1 of 16" in texts


def test_bars_are_where_the_figure_has_them() -> None:
    figure = new_figure(2.0, 4.0, fitted=False)
    axes = figure.add_axes((0.25, 0.25, 0.5, 0.5))
    axes.barh([0, 1], [1, 2], color="#0072b2", height=1.0)
    axes.set(xlim=(0, 4), ylim=(-0.5, 1.5))
    axes.axis("off")
    bars = [path for path in parsed(svg_element(figure, "p", "")).iter("path") if path.get("class") == "f-blue"]
    # Four inches are 288 points; the axes begin at 72 from the left and 108 from the top, and are 144 by 72.
    assert [bar.get("d") for bar in bars] == ["M72 108H108V72H72z", "M72 72H144V36H72z"]


def test_every_colour_is_one_of_the_page(run: dict[str, Any]) -> None:
    for plot in (ranks, errors, codes):
        for element in parsed(svg_element(plot.draw(run), "p", "")).iter():
            assert element.get("style") is None
            assert element.get("fill") in (None, "none") and element.get("stroke") in (None, "none")
    assert all(f".f-{name} {{ fill: var(--{name}); }}" in colour_rules() for name in COLOUR_NAMES.values())


def test_marks_of_two_pictures_have_names_of_their_own(run: dict[str, Any]) -> None:
    names = []
    for prefix in ("r0p1", "r1p1"):
        root = parsed(svg_element(errors.draw(run), prefix, ""))
        ids = {element.get("id") for element in root.iter() if element.get("id")}
        used = {element.get("href") for element in root.iter("use")}
        assert ids and used <= {f"#{name}" for name in ids}
        names.append(ids)
    assert not names[0] & names[1]


def test_hostile_names_are_text(run: dict[str, Any]) -> None:
    layers = [{**layer, "name": HOSTILE + str(place)} for place, layer in enumerate(run["layers"][:3])]
    markup = svg_element(ranks.draw({"layers": layers}), "p", HOSTILE)
    root = parsed(markup)
    assert {element.tag for element in root.iter()} <= {"svg", "path", "use", "text", "tspan", "defs"}
    allowed = {
        "role", "aria-label", "viewBox", "d", "id", "x", "y", "transform", "href", "class", "fill", "stroke",
        "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "stroke-opacity", "fill-opacity", "font-size",
        "font-weight", "text-anchor",
    }  # fmt: skip
    assert {name for element in root.iter() for name in element.keys()} <= allowed  # noqa: SIM118
    assert root.get("aria-label") == HOSTILE and "<script" not in markup


def test_a_picture_is_small(run: dict[str, Any]) -> None:
    assert len(svg_element(ranks.draw(run), "p", "")) < 12_000
