"""`corank analyse`: tables, record and page of each question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from corank.reports import read_record

Invoke = Callable[..., Result]
DIGITS = ("digits", "--data", "digits:test")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for every column, whatever the terminal that runs the tests says."""
    monkeypatch.setenv("COLUMNS", "160")


def analysis_of(path: Path) -> dict[str, Any]:
    (run,) = read_record(path)
    assert (
        run["command"] == "analyse"
        and run["model"] == "digits"
        and run["reproduce"].startswith("corank analyse digits")
    )
    return run["analysis"]


def test_which_layers_hurt(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    record, page = tmp_path / "run.json", tmp_path / "page.html"
    words = ("--quantized", made / "model.safetensors", "--samples", "64", "--record", record, "--report", page)
    result = invoke("analyse", *DIGITS, *words)
    assert result.exit_code == 0, result.output
    found = analysis_of(record)
    assert len(found["layers"]) == 16 and found["lower"] <= found["upper"] and found["harm_together"] > 0
    worst = max(found["layers"], key=lambda one: one["harm"])["name"]
    assert f"{worst} hurts most" in result.stdout and f"--layer {worst}=8" in result.stdout
    text = page.read_text()
    assert "Which layers hurt?" in text and f"{worst} hurts most" in text and text.count("<svg") == 3
    assert "Comparison" not in text and "1 KB" not in text  # of quantized files


@pytest.mark.parametrize("what", ["spectral", "interaction", "straight-through"])
def test_the_other_questions(invoke: Invoke, tmp_path: Path, what: str) -> None:
    record, page = tmp_path / "run.json", tmp_path / "page.html"
    words = ("--what", what, "--samples", "12", "--bits", "2", "--record", record, "--report", page, "--quiet")
    result = invoke("analyse", *DIGITS, *words)
    assert result.exit_code == 0 and not result.output, result.output
    found = analysis_of(record)
    assert found["what"] == what and found["samples"] == 12 and found["labelled"]
    assert page.read_text().count("<svg") == (1 if what == "straight-through" else 2)
    again = invoke("report", record, "--out", tmp_path / "again.html")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.html").read_text().count("<svg") == page.read_text().count("<svg")


def test_json_alone_is_the_record(invoke: Invoke) -> None:
    result = invoke("analyse", *DIGITS, "--samples", "8", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["analysis"]["trial_bits"] == 3


def test_bad_input(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("analyse", *DIGITS, "--what", "everything")
    assert result.exit_code == 2 and "lipschitz, spectral, interaction, straight-through" in result.output
    result = invoke("analyse", *DIGITS, "--bits", "0")
    assert result.exit_code == 2 and "1 to 8" in result.output
    result = invoke("analyse", *DIGITS, "--quantized", made / "record.json")
    assert result.exit_code == 2 and "Traceback" not in result.output
    result = invoke("analyse", *DIGITS, "--record", tmp_path / "none" / "run.json")
    assert result.exit_code == 1 and "there is no folder" in result.output
