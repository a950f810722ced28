"""`corank demo`, with three of its eleven quantizations: all of them take a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from corank.cli.demo import RUNS, DemoRun


def test_demo_writes_its_runs(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (DemoRun("nearest", 4), DemoRun("nearest", 2), DemoRun("nearest", rate=1.0))
    monkeypatch.setattr("corank.cli.demo.RUNS", runs)
    result = invoke("demo", "--record", tmp_path / "demo.json")
    assert result.exit_code == 0, result.output
    whole = json.loads((tmp_path / "demo.json").read_text())
    floating, four, two, rated = whole["runs"]
    assert (whole["command"], whole["model"], whole["seed"]) == ("demo", "digits", 0)
    assert floating["label"] == "float" and floating["bits"] is None
    assert floating["quantized_value"] == floating["float_value"] == four["float_value"]
    assert two["stored_bytes"] < four["stored_bytes"] < floating["stored_bytes"] / 6
    assert two["equivalent_bits"] < four["equivalent_bits"] < 5
    assert rated["stored_bytes"] < two["stored_bytes"] and "--rate 1 " in rated["reproduce"]
    assert "nearest 2" in result.stdout and "nearest rate" in result.stdout
    assert two["reproduce"].startswith("corank quantize digits")


def test_demo_compares_three_methods_at_three_widths_and_two_rates() -> None:
    assert {(one.preset, one.bits) for one in RUNS if one.rate is None} == {
        (preset, bits) for preset in ("nearest", "paper", "fast") for bits in (4, 3, 2)
    }
    assert all(one.budget == 0 for one in RUNS if one.preset == "nearest" or one.rate is not None)
    assert [one.rate for one in RUNS if one.rate is not None] == [2.0, 1.0]
