"""One quantized digits model and a way to call the command, shared by the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from corank.cli import app

Invoke = Callable[..., Result]

QUICK = ("--data", "digits:train", "--samples", "64", "--search", "greedy")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def invoke() -> Invoke:
    """Calls `corank` in this process."""
    return call


@pytest.fixture
def quick() -> tuple[str, ...]:
    """Options of a quantization of digits that takes about a second."""
    return QUICK


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.safetensors, record.json and plan.json of one run; tests only read it."""
    folder = tmp_path_factory.mktemp("made")
    result = call(
        "quantize", "digits", *QUICK, "--eval", "digits:test", "--bits", "3", "--budget", "0.25",
        "--out", folder / "model.safetensors", "--record", folder / "record.json",
        "--save-plan", folder / "plan.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder
