"""The plots show what the record says: their artists are read back."""

from __future__ import annotations

import io
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="plots need the extra `report`")

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from corank.reports.plots import accuracy, course, errors, ranks, spectrum
from corank.reports.plots.style import VERMILION, bits_colour, image_bytes, plot_text, shorten

PER_RUN = [ranks, spectrum, course, errors]


def bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def line(axes: Axes, gid: str) -> tuple[list[float], list[float]]:
    (found,) = [found for found in axes.lines if found.get_gid() == gid]
    return np.asarray(found.get_xdata()).tolist(), np.asarray(found.get_ydata()).tolist()


def points(offsets: object) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(offsets)]


def test_ranks_are_the_bars_lengths_in_the_order_of_the_network(run: dict[str, Any]) -> None:
    (axes,) = ranks.draw(run).axes
    found = {round(bar.get_y() + bar.get_height() / 2): bar for bar in bars(axes)}
    assert [found[place].get_width() for place in range(20)] == [layer["rank"] for layer in run["layers"]]
    colours = [to_hex(found[place].get_facecolor()) for place in range(20)]
    assert colours == [bits_colour(layer) for layer in run["layers"]]
    assert len(set(colours)) == 2
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [layer["name"] for layer in run["layers"]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert "1 of 16" in [note.get_text() for note in axes.texts]


def test_errors_are_in_percent_and_only_the_fragile_layer_is_marked(run: dict[str, Any]) -> None:
    (axes,) = errors.draw(run).axes
    steady, fragile = axes.collections[-2], axes.collections[-1]
    (place,) = [place for place, layer in enumerate(run["layers"]) if layer["name"] == "layer2.1.conv2"]
    assert points(fragile.get_offsets()) == [(50.0, place)]
    expected = {(100 * layer["relative_output_error"], i) for i, layer in enumerate(run["layers"]) if i != place}
    assert set(points(steady.get_offsets())) == expected
    assert to_hex(axes.get_yticklabels()[place].get_color()) == VERMILION


def test_fragile_is_over_twice_the_median() -> None:
    assert errors.fragile_limit([1.0, 2.0, 9.0]) == 4.0
    assert errors.fragile_limit([]) == 0.0


def test_the_spectrum_is_cut_at_the_rank(run: dict[str, Any]) -> None:
    layer = {**run["layers"][0], "spectrum": [4.0, 3.0, 2.0, 1.0], "rank": 2}
    (axes,) = spectrum.draw({"layers": [layer]}).axes
    assert [bar.get_height() for bar in bars(axes)] == pytest.approx([40, 30, 20, 10])
    colours = [to_hex(bar.get_facecolor()) for bar in bars(axes)]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [2.5, 2.5]
    assert axes.get_title(loc="left") == "conv1\nrank 2 covers 70 %"


def test_the_spectrum_takes_eight_layers_along_the_network_or_those_asked_for(run: dict[str, Any]) -> None:
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in spectrum.draw(run).axes]
    assert len(titles) == 8 and titles[0] == "conv1" and titles[-1] == "fc"
    (axes,) = spectrum.draw(run, names=["layer2.0.conv1"]).axes
    assert axes.get_title(loc="left").startswith("layer2.0.conv1")


def test_the_course_is_the_history(run: dict[str, Any]) -> None:
    history = run["search_history"]
    steps = [step["iteration"] for step in history]
    panels = course.draw(run).axes
    for axes, keys in zip(panels, (["loss"], ["divergence"], ["extra_bits", "budget_bits"]), strict=True):
        for key in keys:
            assert line(axes, key) == (steps, [step[key] for step in history])
    assert len(line(panels[0], "loss-mean")[1]) == 50


def test_the_course_leaves_out_what_was_not_recorded(run: dict[str, Any]) -> None:
    history = [{"loss": 1.0, "divergence": None}, {"loss": None}, {"loss": 3.0}]
    (axes,) = course.draw({**run, "search_history": history}).axes
    assert line(axes, "loss") == ([0.0, 2.0], [1.0, 3.0])


def test_accuracy_has_one_line_per_family_and_one_for_float(runs: list[dict[str, Any]]) -> None:
    (axes,) = accuracy.draw(runs).axes
    found = {str(line.get_label()): line for line in axes.lines}
    assert points(found["fast"].get_xydata()) == [
        (92.4, 73.0),
        (120.5, 80.25),
        (150.0, 80.75),
    ]
    assert points(found["nearest"].get_xydata()) == [(110.0, 45.25), (145.0, 74.0)]
    assert found["fast"].get_color() != found["nearest"].get_color()
    assert set(line(axes, "float")[1]) == {81.0}
    assert {note.get_text() for note in axes.texts} == {"3", "4", "2+0.4", "3+0.2", "4+0.1"}
    (legend,) = (line.get_label() for line in axes.lines if line.get_gid() == "float")
    assert legend == "float 81.0 %, 1.09 MB"
    assert "KB" in axes.get_xlabel() and axes.get_ylabel() == "top-1 (%)"


@pytest.mark.parametrize(
    ("label", "expected"),
    [("fast 3+0.2", "fast"), ("paper cora 2", "paper cora"), ("3 bits", "3 bits"), ("a", "a")],
)
def test_a_family_is_the_words_before_the_numbers(label: str, expected: str) -> None:
    assert accuracy.family(label) == expected


def test_nothing_to_draw_is_known_beforehand_and_still_drawn(bare: dict[str, Any]) -> None:
    for plot in PER_RUN:
        assert not plot.can_draw(bare)
        assert image_bytes(plot.draw(bare), dots_per_inch=50).startswith(b"\x89PNG")
    assert not accuracy.can_draw([bare]) and accuracy.draw([bare]).axes


def test_hostile_and_long_names_are_drawn_as_text(run: dict[str, Any]) -> None:
    names = ["$\\frac{$", "_private", "a$b$c", "\u4e2d\u6587", "back\\slash", "x" * 500, "\x1b[0m"]
    layers = [{**run["layers"][1], "name": name} for name in names]
    hostile = {**run, "layers": layers, "label": "$x_2$ 1", "metric": "$\\bad{$ and $"}
    for plot in PER_RUN:
        image_bytes(plot.draw(hostile), dots_per_inch=50)
    image_bytes(accuracy.draw([hostile, {**hostile, "label": "_y"}]), dots_per_inch=50)
    (axes,) = ranks.draw(hostile).axes
    assert max(len(tick.get_text()) for tick in axes.get_yticklabels()) <= 26


def test_a_network_of_many_layers_names_at_most_sixty(run: dict[str, Any]) -> None:
    layers = [{**run["layers"][1], "name": f"stage.{place}.conv"} for place in range(150)]
    for plot in (ranks, errors):
        figure = plot.draw({**run, "layers": layers})
        (axes,) = figure.axes
        assert 40 <= len(axes.get_yticklabels()) <= 60
        assert figure.get_figheight() < 15


def test_images_and_the_global_state_of_matplotlib(run: dict[str, Any]) -> None:
    before = dict(rcParams)
    figure = ranks.draw(run)
    with Image.open(io.BytesIO(image_bytes(figure, dots_per_inch=100))) as image:
        assert image.size == (520, round(100 * figure.get_figheight()))
    assert b"<svg" in image_bytes(figure, "svg")
    assert dict(rcParams) == before


def test_a_colour_of_few_pixels_is_kept(run: dict[str, Any]) -> None:
    layers = [{**run["layers"][1], "name": f"stage.{place}.conv", "rank": 4} for place in range(59)]
    picture = image_bytes(ranks.draw({"layers": [*layers, {"name": "fc", "bits": 8, "rank": 0}]}))
    red, green, blue = (round(255 * part) for part in to_rgb(bits_colour({"bits": 8})))
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    assert np.abs(pixels - (red, green, blue)).max(axis=-1).min() <= 4


def test_shortened_names_keep_start_and_end() -> None:
    assert shorten("layer1.0.conv1") == "layer1.0.conv1"
    short = shorten("backbone.stages.3.blocks.11.attention.projection")
    assert len(short) == 26 and short.startswith("backbone") and short.endswith("tion.projection")
    assert plot_text("_a$b") == r" _a\$b"
