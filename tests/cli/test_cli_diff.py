"""`corank diff`: what it shows, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for every column, whatever the terminal that runs the tests says."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from corank.cli import app

    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    words = (
        f"quantize digits --data digits:train --samples 64 --preset nearest --bits 2 --layer head=float --out {path}"
    )
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    return path


def test_a_file_is_equal_to_itself(invoke: Invoke, made: Path) -> None:
    result = invoke("diff", made / "model.safetensors", made / "model.safetensors")
    assert result.exit_code == 0, result.output
    assert "16 of 16 coded layers are equal" in result.stdout and "the networks are equal" in result.stdout
    assert "stage1.0.conv1" not in result.stdout
    everything = invoke("diff", made / "model.safetensors", made / "model.safetensors", "--all")
    assert everything.exit_code == 0 and "stage1.0.conv1" in everything.stdout


def test_different_files(invoke: Invoke, made: Path, other: Path) -> None:
    result = invoke("diff", made / "model.safetensors", other)
    assert result.exit_code == 1, result.output
    assert "uniform 3 → 2" in result.stdout and "the networks differ" in result.stdout
    assert "coded in A only (1):\n  head\n" in result.stdout and "left in float in B only (1):" in result.stdout


def test_json_is_the_record_and_quiet_is_nothing(invoke: Invoke, made: Path, other: Path) -> None:
    result = invoke("diff", made / "model.safetensors", other, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["equal"] and found["b"]["stored_bytes"] == other.stat().st_size
    quiet = invoke("diff", made / "model.safetensors", other, "--quiet")
    assert quiet.exit_code == 1 and quiet.output == ""


def test_an_error_is_neither_equal_nor_different(
    invoke: Invoke, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad").write_bytes(b"nothing")
    result = invoke("diff", made / "model.safetensors", tmp_path / "bad")
    assert result.exit_code == 2 and result.stderr.startswith("error: ")

    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("corank.diff", broken)
    result = invoke("diff", made / "model.safetensors", made / "model.safetensors")
    assert result.exit_code == 2 and "a fault" in result.stderr
