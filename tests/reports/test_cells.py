"""What tables say, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from corank.reports.cells import (
    comparison_cells,
    float_note,
    headline_run,
    layer_cells,
    metric_name,
    show_bytes,
    show_drop,
    show_loss,
    show_value,
    unit_of,
)


def test_one_row_of_the_comparison(run: dict[str, Any]) -> None:
    assert comparison_cells(run) == (
        "fast 3+0.2",
        "3",
        "3.350",
        "80.25 %",
        "0.75",
        "120.50 KB",
        "9.0x",
        "250",
        "61.5",
    )


def test_bits_of_a_rate_are_those_in_the_file(run: dict[str, Any]) -> None:
    layers = [{**layer, "file_bits_per_weight": 1.5} for layer in run["layers"]]
    rated = {**run, "plan": {"default": {"codec": {"kind": "rate-uniform", "bits": 4}}}, "layers": layers}
    assert comparison_cells(rated)[1:3] == ("–", "1.500")
    assert comparison_cells({**run, "layers": layers})[1:3] == ("3", "1.500")
    for odd in ({}, {"default": []}, {"default": {"codec": "rate-uniform"}}, "plan"):
        assert comparison_cells({**run, "plan": odd})[1] == "3"


def test_a_record_that_says_nothing_has_dashes(bare: dict[str, Any]) -> None:
    assert comparison_cells(bare) == ("quantize", *("–",) * 8)
    assert layer_cells({"name": "fc"}) == ("fc", "–", "float", "–", "–", "–", "–")


def test_one_row_of_the_layers(run: dict[str, Any]) -> None:
    assert layer_cells(run["layers"][1]) == ("layer1.0.conv1", "16 × 144", "3", "2.75", "1 of 16", "200 B", "2 %")
    coded = {**run["layers"][1], "file_bits_per_weight": 0.5}  # what the file takes, where it is known
    assert layer_cells(coded)[5] == "144 B"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (999_999, "1.00 MB"),
        (1_090_000, "1.09 MB"),
        (2.5e9, "2.50 GB"),
    ],
)
def test_a_kilobyte_is_1000_bytes(size: float, shown: str) -> None:
    assert show_bytes(size) == shown


@pytest.mark.parametrize(("value", "shown"), [(80.0, "1.00"), (81.5, "−0.50"), (81.001, "0.00"), (None, "–")])
def test_the_drop_is_what_was_lost(value: float | None, shown: str) -> None:
    assert show_drop({"float_value": 81.0, "quantized_value": value}) == shown


def test_a_stored_size_of_zero_gives_no_ratio() -> None:
    assert comparison_cells({"stored_bytes": 0, "float_bytes": 10})[6] == "–"


def test_the_headline_is_the_smallest_file_near_float(runs: list[dict[str, Any]]) -> None:
    assert headline_run(runs)[0]["label"] == "fast 3+0.2"
    assert headline_run(runs[:3])[0]["label"] == "nearest 4"
    assert headline_run([{"label": "a"}, {"label": "b"}])[0]["label"] == "a"


def test_a_name_or_a_float_model_is_given_only_where_all_runs_share_it(runs: list[dict[str, Any]]) -> None:
    assert metric_name(runs) == "top-1"
    assert float_note(runs) == "float model: 81.00 %, 1.09 MB"
    other = {**runs[0], "metric": "top-5", "float_value": 70.0}
    assert metric_name([*runs, other]) == "accuracy"
    assert float_note([*runs, other]) == ""


def test_nats_are_better_when_fewer() -> None:
    run = {"metric": "nats per token", "float_value": 1.304, "quantized_value": 1.3162, "stored_bytes": 900}
    assert (show_value(run, "float_value"), show_drop(run), show_loss(run)) == (
        "1.3040 nats",
        "0.0122",
        "0.0122 nats lost",
    )
    assert show_loss({**run, "quantized_value": 1.3}) == "0.0040 nats gained"
    assert show_loss({"metric": "top-1"}) == "" and unit_of([run]) == "nats per token"
    worse = {**run, "quantized_value": 1.9, "stored_bytes": 400}
    assert headline_run([worse, run]) == (run, "the smallest within 0.05 nats of float")
    far = {**run, "quantized_value": 1.7}
    assert headline_run([worse, far]) == (far, "the most accurate")


def test_points_lost_in_words(run: dict[str, Any]) -> None:
    assert show_loss(run) == "0.75 points lost" and unit_of([run]) == "top-1 (%)"
    assert show_loss({**run, "quantized_value": 82.0}) == "1.00 points gained"
