"""`corank evaluate --attack`; the course of a training that ends in a float network, recorded and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import corank
from corank.data import load
from corank.errors import ArtifactError
from corank.models.digits import digits_net
from corank.reports import read_record

Invoke = Callable[..., Result]
DIGITS = ("--model", "digits", "--data", "digits:test")
NAMES = ("fgsm:8/255", "pgd:8/255,3")


def test_scores_under_attacks_are_shown_recorded_and_reported(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    file, record = made / "model.safetensors", tmp_path / "run.json"
    asked = [word for name in NAMES for word in ("--attack", name)]
    result = invoke("evaluate", file, *DIGITS, *asked, "--reference", "--record", record)
    assert result.exit_code == 0, result.output
    images = load("digits:test")
    expected = [corank.evaluate(one, images, attacks=NAMES) for one in (corank.load(file, digits_net()), digits_net())]
    told = json.loads(record.read_text())
    assert told["attacked"] == dict(expected[0].attacked) and told["float_attacked"] == dict(expected[1].attacked)
    assert expected[0].top1 is not None
    assert expected[0].attacked["pgd:8/255,3"] <= expected[0].attacked["fgsm:8/255"] < expected[0].top1
    for name in NAMES:
        assert f"top-1 under {name}" in result.stdout and f"{told['attacked'][name]:.2f} %" in result.stdout
    assert invoke("report", record, "--out", tmp_path / "page").exit_code == 0
    page = next((tmp_path / "page").glob("*.html")).read_text()
    assert "top-1 under fgsm:8/255" in page and f"(float {told['float_attacked'][NAMES[0]]:.2f} %)" in page
    record.write_text(json.dumps({**told, "attacked": {"fgsm:8/255": "none"}}))
    with pytest.raises(ArtifactError, match="not a number"):
        read_record(record)


def test_an_attack_that_cannot_be_read_is_said_before_anything_is(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path / "none.safetensors", *DIGITS, "--attack", "fgsm=2")
    assert result.exit_code == 2 and "'pgd:2/255,10'" in result.output


def test_the_course_of_a_float_training_is_recorded(invoke: Invoke, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "sparse.safetensors", "--record", tmp_path / "run.json", "--report", tmp_path / "page")
    words = ("train", "digits", "--data", "digits:train[:64]", "--recipe", "robust", "--iterations", "30")
    result = invoke(*words, "--batch-size", "16", *out, "--quiet")
    assert result.exit_code == 0, result.output
    steps = json.loads((tmp_path / "run.json").read_text())["search_history"]
    assert len(steps) == 30 and steps[-1]["sparsity"] == pytest.approx(0.9, abs=0.01)
    assert steps[24]["condition"] > 0 and "condition" not in steps[0]
    page = next((tmp_path / "page").glob("*.html")).read_text()
    assert "log10 condition number, mean" in page
