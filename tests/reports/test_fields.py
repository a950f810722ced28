"""Fields are read without trust: a wrong type reads as nothing, and texts cannot steer a terminal."""

from __future__ import annotations

import math

import pytest

from corank.reports.fields import clean, entries, file_bits, layer_name, number, numbers, run_label, text


@pytest.mark.parametrize("value", [None, True, "3", [], math.nan, math.inf, -math.inf, 10**400, 1e300])
def test_what_is_not_a_finite_number_reads_as_none(value: object) -> None:
    assert number({"a": value}, "a") is None
    assert numbers({"a": [1.0, value]}, "a") == []


def test_control_and_direction_characters_are_replaced() -> None:
    assert clean("a\x1b[31mb\u202ec\ud800d\ne") == "a\ufffd[31mb\ufffdc\ufffdd\ne"
    assert clean("ab" * 100, limit=10) == "ababababa…"


def test_fields_of_another_type_read_as_absent() -> None:
    assert number({}, "a") is None and numbers({}, "a") == [] and text({"a": 3}, "a") is None
    assert entries({"a": "text"}, "a") == [] and entries({"a": [1, {"b": 2}]}, "a") == [{"b": 2}]


def test_names_for_runs_and_layers_without_one() -> None:
    assert run_label({"label": "two\nlines"}) == "two lines"
    assert run_label({"label": "", "preset": "paper", "bits": 3}) == "paper 3"
    assert run_label({"command": "evaluate"}) == "evaluate"
    assert run_label({}) == "run"
    assert layer_name({"name": ""}) == "(model)"


def test_bits_of_the_file() -> None:
    layers = [{"shape": [4, 10], "file_bits_per_weight": 2.0}, {"shape": [6, 10], "file_bits_per_weight": 3.0}]
    assert file_bits({"layers": layers}) == 2.6
    for unknown in ({}, {"layers": []}, {"layers": [{"shape": [4, 10]}]}, {"layers": [*layers, {"shape": None}]}):
        assert file_bits(unknown) is None
