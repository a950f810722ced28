"""`corank demo`, with two of its nine quantizations: all of them take a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from corank.cli.demo import RUNS


def test_demo_writes_its_runs(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corank.cli.demo.RUNS", (("nearest", 4, 0.0), ("nearest", 2, 0.0)))
    result = invoke("demo", "--record", tmp_path / "demo.json")
    assert result.exit_code == 0, result.output
    whole = json.loads((tmp_path / "demo.json").read_text())
    floating, four, two = whole["runs"]
    assert (whole["command"], whole["model"], whole["seed"]) == ("demo", "digits", 0)
    assert floating["label"] == "float" and floating["bits"] is None
    assert floating["quantized_value"] == floating["float_value"] == four["float_value"]
    assert two["stored_bytes"] < four["stored_bytes"] < floating["stored_bytes"] / 6
    assert two["equivalent_bits"] < four["equivalent_bits"] < 5
    assert "nearest 2" in result.stdout and two["reproduce"].startswith("corank quantize digits")


def test_demo_compares_three_methods_at_three_widths() -> None:
    assert {(preset, bits) for preset, bits, _ in RUNS} == {
        (preset, bits) for preset in ("nearest", "paper", "fast") for bits in (4, 3, 2)
    }
    assert all(budget == 0 for preset, _, budget in RUNS if preset == "nearest")
