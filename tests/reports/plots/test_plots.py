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
from matplotlib.patches import Rectangle, StepPatch
from PIL import Image

from corank.reports.plots import (
    accuracy,
    bits,
    codes,
    course,
    errors,
    ranks,
    refinement,
    size,
    spectrum,
    training,
    weights,
)
from corank.reports.plots.style import VERMILION, bits_colour, image_bytes, plot_text, shorten

PER_RUN = [size, bits, ranks, errors, spectrum, codes, weights, course, refinement, training]


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


def steps(axes: Axes) -> dict[str, StepPatch]:
    return {str(patch.get_gid()): patch for patch in axes.patches if isinstance(patch, StepPatch)}


def test_the_worst_of_the_fragile_layers_is_first(run: dict[str, Any]) -> None:
    layers = [
        {"name": name, "relative_output_error": error} for name, error in zip("abcde", (1, 9, 1, 5, 1), strict=True)
    ]
    found = errors.fragile_layers({"layers": layers})
    assert [(layer["name"], times) for layer, times in found] == [("b", 9.0), ("d", 5.0)]
    assert [layer["name"] for layer, _ in errors.fragile_layers(run)] == ["layer2.1.conv2"]
    assert errors.fragile_layers({}) == []


def test_the_spectrum_is_cut_at_the_rank(run: dict[str, Any]) -> None:
    layer = {**run["layers"][0], "spectrum": [4.0, 3.0, 2.0, 1.0], "rank": 2}
    (axes,) = spectrum.draw({"layers": [layer]}).axes
    kept, lost = (steps(axes)[name].get_data() for name in ("kept", "lost"))
    assert list(kept.values) == pytest.approx([40, 30]) and list(kept.edges) == [0.5, 1.5, 2.5]
    assert list(lost.values) == pytest.approx([20, 10]) and list(lost.edges) == [2.5, 3.5, 4.5]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [2.5, 2.5]
    assert axes.get_title(loc="left") == "conv1\nrank 2 covers 70 %"
    assert spectrum.describe({"layers": [layer]}) == "conv1: rank 2 covers 70 %."


def test_panels_are_eight_layers_along_the_network_or_those_asked_for(run: dict[str, Any]) -> None:
    for plot in (spectrum, codes, weights):
        titles = [axes.get_title(loc="left").split("\n")[0] for axes in plot.draw(run).axes]
        assert len(titles) == 8 and titles[0] == "conv1" and titles[-1] == "fc"
        (axes,) = plot.draw(run, names=["layer2.0.conv1"]).axes
        assert axes.get_title(loc="left").startswith("layer2.0.conv1")


def test_codes_are_shares_of_the_weights(run: dict[str, Any]) -> None:
    layer = {**run["layers"][1], "bits": 2, "code_counts": [1, 4, 3, 2], "code_entropy": 1.85}
    (axes,) = codes.draw({"layers": [layer]}).axes
    data = steps(axes)["codes"].get_data()
    assert list(data.values) == [10, 40, 30, 20] and list(data.edges) == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert axes.get_title(loc="left") == "layer1.0.conv1\nentropy 1.85 of 2 bits"
    assert not codes.can_draw({"layers": [{**layer, "code_counts": [0, 0]}, {**layer, "code_counts": [-1, 5]}]})


def test_weights_are_shown_with_the_float_ones_where_those_are_known(run: dict[str, Any]) -> None:
    layer = run["layers"][1]
    (axes,) = weights.draw({"layers": [layer]}).axes
    ours, theirs = (steps(axes)[name].get_data() for name in ("coded_counts", "float_counts"))
    assert list(ours.values) == [12.5, 50, 25, 12.5] and list(theirs.values) == [25, 37.5, 25, 12.5]
    assert list(ours.edges) == list(theirs.edges) == [-0.5, -0.3125, -0.125, 0.0625, 0.25]
    (axes,) = weights.draw({"layers": [{**layer, "float_counts": []}]}).axes
    assert set(steps(axes)) == {"coded_counts"}
    assert not weights.can_draw({"layers": [{**layer, "weight_range": [1, 1]}]})


def test_stored_bits_are_divided_into_parts(run: dict[str, Any]) -> None:
    layer = {**run["layers"][3], "shape": [4, 5], "stored_bits": {"codes": 60, "scales": 20, "adapter": 40}}
    (axes,) = bits.draw({"layers": [layer]}).axes
    found = {str(bar.get_gid()): (bar.get_x(), bar.get_width()) for bar in bars(axes)}
    assert found == {"codes": (0, 3), "scales": (3, 1), "adapter": (4, 2)}
    assert points(axes.collections[-1].get_offsets()) == [(2.75, 0)]
    (axes,) = bits.draw({"layers": [{**layer, "file_bits_per_weight": 4.5}]}).axes
    assert points(axes.collections[-1].get_offsets()) == [(4.5, 0)]
    assert bits.describe({"layers": [layer]}).startswith("Stored bits per weight of 1 layers, from 6.00 in ")
    assert not bits.can_draw({"layers": [{**layer, "shape": [0, 5]}, {**layer, "stored_bits": [3]}]})


def test_the_bytes_are_those_of_the_file(run: dict[str, Any]) -> None:
    (axes,) = size.draw(run).axes
    assert [bar.get_width() for bar in bars(axes)] == [100_000, 4_000, 6_500, 3_000, 7_000]
    assert axes.texts[0].get_text() == "100.00 KB, 83 %"
    assert size.describe(run).startswith("codes: 100.00 KB, 83 %; scales: 4.00 KB")


def test_the_course_shows_the_divergence_and_not_the_penaltys_constant(run: dict[str, Any]) -> None:
    history = run["search_history"]
    iterations = [step["iteration"] for step in history]
    panels = course.draw(run).axes
    for axes, keys in zip(panels, (["divergence"], ["extra_bits", "budget_bits"]), strict=True):
        for key in keys:
            assert line(axes, key) == (iterations, [step[key] for step in history])
    assert len(line(panels[0], "divergence-mean")[1]) == 50
    assert panels[0].get_ylabel() == "divergence from float"
    assert panels[1].get_ylabel() == "extra bits per weight"
    low, high = panels[0].get_ylim()
    shown = [step["divergence"] for step in history]
    assert (max(shown) - min(shown)) / (high - low) > 0.5, "the course fills the panel"
    assert course.describe(run).endswith("the adapters' bits per weight from 0.2 to 0.2, of a budget of 0.2.")


def test_the_course_leaves_out_what_was_not_recorded(run: dict[str, Any]) -> None:
    spent = {"divergence": None, "extra_bits": 0.1}
    history = [{"loss": 1.0, **spent}, {"loss": None}, {"loss": 3.0, **spent}]
    axes, _ = course.draw({**run, "search_history": history}).axes
    assert line(axes, "loss") == ([0.0, 1.0], [1.0, 3.0])
    assert axes.get_ylabel() == "loss"


def test_a_refinement_is_told_from_the_search_before_it(run: dict[str, Any]) -> None:
    later = [{"iteration": 50 + step, "divergence": 0.5 / (1 + step), "budget_bits": 0.2} for step in range(20)]
    later[-1].update({"before": 0.4, "after": 0.1})
    both = {**run, "search_history": [*run["search_history"], *later]}
    assert line(course.draw(both).axes[0], "divergence") == line(course.draw(run).axes[0], "divergence")
    assert not refinement.can_draw(run) and refinement.can_draw(both)
    (axes,) = refinement.draw(both).axes
    assert line(axes, "divergence") == ([step["iteration"] for step in later], [step["divergence"] for step in later])
    assert set(line(axes, "before")[1]) == {0.4} and set(line(axes, "after")[1]) == {0.1}
    assert refinement.describe(both).endswith("on the samples that judge it, from 0.4 to 0.1.")
    assert "judge" not in refinement.describe({"search_history": later[:-1]})


def test_blocks_go_from_their_error_before_to_that_after() -> None:
    blocks = [{"iteration": 100.0, "before": 0.5, "after": 0.25}, {"iteration": 200.0, "before": 0.1, "after": 0.2}]
    run = {"search_history": blocks}
    assert refinement.can_draw(run) and not course.can_draw(run)
    (axes,) = refinement.draw(run).axes
    before, after = axes.collections[-2:]
    assert points(before.get_offsets()) == [(50, 1), (10, 2)] and points(after.get_offsets()) == [(25, 1), (20, 2)]
    assert refinement.describe(run).startswith("Errors of 2 blocks") and "1 became smaller" in refinement.describe(run)


def test_a_single_run_stands_beside_its_float_network(run: dict[str, Any]) -> None:
    (axes,) = accuracy.draw([run]).axes
    assert line(axes, "float-point") == ([1090.0], [81.0])
    assert axes.get_xscale() == "log" and axes.get_xlim()[0] < 120.5 < 1090 < axes.get_xlim()[1]
    low, high = axes.get_ylim()
    assert low < 80.25 and high > 81 and 2 <= high - low < 4
    perfect = {**run, "float_value": 100.0, "quantized_value": 100.0}
    assert accuracy.draw([perfect]).axes[0].get_ylim()[1] < 100.1
    assert accuracy.describe([run]) == "fast 3+0.2: 80.25 % in 120.50 KB; float: 81.00 % in 1.09 MB."
    assert not accuracy.can_draw([{**run, "float_bytes": None}])


def test_nats_have_no_percent(run: dict[str, Any]) -> None:
    language = {**run, "metric": "nats per token", "float_value": 1.304, "quantized_value": 1.32}
    (axes,) = accuracy.draw([language]).axes
    assert axes.get_title(loc="left") == "Nats per token against file size"
    assert axes.get_ylabel() == "nats per token" and "float 1.304, 1.09 MB" in axes.get_legend_handles_labels()[1]


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
    assert max(len(tick.get_text()) for tick in axes.get_yticklabels()) <= 22


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
        assert image.size == (440, round(100 * figure.get_figheight()))
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
    assert len(short) == 22 and short.startswith("backbon") and short.endswith("n.projection")
    assert plot_text("_a$b") == r" _a\$b"


@pytest.mark.parametrize("families", [1, 3, 4, 6])
def test_the_legend_stays_within_the_picture(run: dict[str, Any], families: int) -> None:
    names = ["nearest", "paper", "fast", "fast rate", "best with a long name", "best rate"][:families]
    runs = [{**run, "label": f"{name} {place}"} for place, name in enumerate(names)]
    figure = accuracy.draw([*runs, {**run, "label": "fast 9", "stored_bytes": 50_000}])
    figure.savefig(io.BytesIO())
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert legend.get_window_extent().x1 <= figure.bbox.x1
