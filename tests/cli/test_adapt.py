"""`corank adapt`, `--adapter`, and what inspect says of an adapter's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
NET = ("--model", "digits", "--device", "cpu")
FEW = ("--data", "digits:train[:64]", "--rank", "1", "--iterations", "2", "--batch-size", "16")


@pytest.fixture(scope="module")
def task(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cli.conftest import call

    folder = tmp_path_factory.mktemp("task")
    result = call(
        "adapt", made / "model.safetensors", *NET, *FEW, "--out", folder / "task.safetensors",
        "--merged", folder / "merged.safetensors", "--record", folder / "record.json", "--eval", "digits:test[:50]",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "a task's adapter" in result.stdout and "wrote" in result.stdout and "of 50 samples" in result.stdout
    return folder


def test_the_record_says_what_was_added(made: Path, task: Path) -> None:
    record = json.loads((task / "record.json").read_text())
    assert record["command"] == "adapt" and record["adapter"]["iterations"] == 2 and record["adapter"]["head"] is None
    assert record["adapter_bytes"] == (task / "task.safetensors").stat().st_size
    assert record["base_bytes"] == (made / "model.safetensors").stat().st_size
    assert set(record["adapter"]["ranks"].values()) == {1}


def test_base_with_adapter_scores_as_both_in_one_file(invoke: Invoke, made: Path, task: Path) -> None:
    data = (*NET, "--data", "digits:test[:100]", "--json")
    one = invoke("evaluate", made / "model.safetensors", *data, "--adapter", task / "task.safetensors")
    both = invoke("evaluate", task / "merged.safetensors", *data)
    packed = invoke("evaluate", made / "model.safetensors", *data, "--adapter", task / "task.safetensors", "--packed")
    assert one.exit_code == both.exit_code == packed.exit_code == 0, one.output + packed.output
    values = [json.loads(result.stdout)["quantized_value"] for result in (one, both, packed)]
    assert values[0] == values[1] == values[2]
    lying = sum(path.stat().st_size for path in (made / "model.safetensors", task / "task.safetensors"))
    for said in (json.loads(one.stdout), json.loads(packed.stdout)):
        assert said["stored_bytes"] == lying == sum(said["stored_parts"].values())
    merged = invoke("predict", task / "merged.safetensors", "digits:test[:2]", *NET, "--json")
    guessed = invoke(
        "predict", made / "model.safetensors", "digits:test[:2]", *NET, "--json", "--adapter", task / "task.safetensors"
    )
    assert guessed.exit_code == 0 and guessed.stdout == merged.stdout


def test_inspect_tells_what_it_is(invoke: Invoke, task: Path) -> None:
    result = invoke("inspect", task / "task.safetensors")
    assert result.exit_code == 0 and "a task's adapter" in result.stdout and "SHA-256 sound" in result.stdout
    said = json.loads(invoke("inspect", task / "task.safetensors", "--json").stdout)
    assert said["adapter"]["iterations"] == 2 and said["adapter_bytes"] == (task / "task.safetensors").stat().st_size


def test_what_does_not_fit_is_said(invoke: Invoke, made: Path, task: Path, tmp_path: Path) -> None:
    data = (*NET, "--data", "digits:test[:10]")
    other = invoke("evaluate", task / "merged.safetensors", *data, "--adapter", task / "task.safetensors")
    assert other.exit_code == 2 and "belongs to a base with the codes" in other.stderr
    alone = invoke("evaluate", task / "task.safetensors", *data)
    assert alone.exit_code == 2 and "a task's adapter, no network" in alone.stderr
    both = invoke("adapt", made / "model.safetensors", *NET, *FEW, "--size", "9KB", "--out", tmp_path / "x.safetensors")
    assert both.exit_code == 2 and "rank and size were both given" in both.stderr
    over = invoke("adapt", made / "model.safetensors", *NET, *FEW, "--out", made / "model.safetensors")
    assert over.exit_code == 2 and "would be overwritten" in over.stderr
