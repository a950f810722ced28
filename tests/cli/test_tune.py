"""`corank tune`: from a command to a file, a study, and the command that makes a trial again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

pytest.importorskip("optuna")

from corank.cli.tuning_request import remade

Invoke = Callable[..., Result]

OWN = """
def score(configuration):
    return configuration["a"] - (configuration.get("b") or 0)
"""
SPACE = """
name = "own"
score = "own.py:score"

[[choices]]
name = "a"
values = [1, 2, 3]

[[choices]]
name = "b"
values = [5, "none"]
when = {a = [3]}
"""


def shown(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_int8_from_a_command_and_a_trial_again(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    result = invoke(
        "tune", "digits", "--data", "digits:train", "--eval", "digits:test", "--space", "int8", "--trials", "3",
        "--choice", "calibration=1,20", "--samples", "20", "--out", "best.onnx", "--record", "study.json",
        "--report", "study.html",
    )  # fmt: skip
    said = shown(result)
    assert "best: trial" in said and "nothing was chosen by" in said and "best.study.db" in said
    study = json.loads((tmp_path / "study.json").read_text())
    best = study["trials"][study["best"]]
    assert (tmp_path / "best.onnx").stat().st_size == best["rungs"][-1]["size_bytes"]
    assert best["command"] in (tmp_path / "study.html").read_text().replace("&#39;", "'")
    told = invoke("tune", "--show", str(study["best"]), "--storage", "sqlite:///best.study.db")
    command = shlex.split(told.output.strip().splitlines()[-1])
    assert command[:2] == ["corank", "tune"] and best["rungs"][-1]["sha256"] in told.output
    shown(invoke(*command[1:]))
    assert (tmp_path / "trial.onnx").read_bytes() == (tmp_path / "best.onnx").read_bytes()


def test_a_toml_file_with_a_score_of_ones_own(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(SPACE)
    kept = f"sqlite:///{tmp_path / 'own.db'}"
    said = shown(
        invoke("tune", "--space", tmp_path / "own.toml", "--trials", "9", "--storage", kept, "--tuner", "grid")
    )
    assert "best: trial 3 of 4, 3.00" in said
    assert "a=3,b=none" in shown(invoke("tune", "--show", "3", "--storage", kept))


def test_the_command_that_makes_a_configuration_again() -> None:
    typed = "corank tune m.py:net --data 'a b.zip' --trials 9 --storage=x.db --size 60KB --out o.safetensors --quiet"
    command = remade(typed, ".safetensors")({"codes": "rate", "group": None})
    own = "--configuration codes=rate,group=none --out trial.safetensors"
    assert command == f"corank tune m.py:net --data 'a b.zip' --size 60KB {own}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits", "--data", "digits"], "one of the three is missing"),
        (["digits", "--data", "digits", "--out", "x.onnx"], "give x.safetensors"),
        (["digits", "--data", "digits", "--out", "x.onnx", "--space", "int9"], "corank, int8, or a .toml"),
        (["digits", "--data", "digits", "--out", "x.onnx", "--space", "int8", "--choice", "scheme"], "NAME=A,B"),
        (["digits", "--data", "digits", "--out", "x.onnx", "--space", "int8", "--choice", "odd=1"], "no choice"),
        (["--show", "3"], "needs the storage"),
        (["--show", "3", "--storage", "sqlite:///none.db"], "no study 'corank'"),
    ],
)
def test_what_cannot_be(
    words: list[str], said: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("tune", *words)
    assert result.exit_code == 2 and said in " ".join(result.output.split())


def test_a_space_of_ones_own_takes_no_model(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(SPACE)
    result = invoke("tune", "digits", "--space", tmp_path / "own.toml")
    assert result.exit_code == 2 and "takes no model" in " ".join(result.output.split())
    (tmp_path / "own.toml").write_text(SPACE.replace("own.py:score", "own"))
    result = invoke("tune", "--space", tmp_path / "own.toml")
    assert result.exit_code == 2 and "says no score" in " ".join(result.output.split())
