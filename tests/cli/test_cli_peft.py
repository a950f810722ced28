"""`corank export --to peft` and `corank import-peft`: there and back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import corank
from corank.export import load_peft_base, peft_layers
from corank.models import resolve

peft = pytest.importorskip("peft")

Invoke = Callable[..., Result]


@pytest.fixture
def exported(invoke: Invoke, made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    words = [
        "export",
        "digits",
        made / "model.safetensors",
        "--to",
        "peft",
        "--out",
        folder,
        "--input",
        "4x1x8x8",
        "--json",
    ]
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["relative_difference"] <= 1e-5 and shown["size_bytes"] > shown["artifact_bytes"]
    assert all(Path(path).is_file() for path in shown["files"])
    return folder


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")
def test_there_and_back(invoke: Invoke, made: Path, exported: Path, tmp_path: Path) -> None:
    model = resolve("digits").model
    adapted = peft.PeftModel.from_pretrained(load_peft_base(exported, model), str(exported))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.data *= 1.5
    adapted.save_pretrained(str(tmp_path / "tuned"))
    out = tmp_path / "tuned.safetensors"
    words = ["import-peft", "digits", made / "model.safetensors", tmp_path / "tuned", "--out", out]
    result = invoke(*words, "--adapter-bits", "6")
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in peft_layers(corank.load(out, model)).held)
    assert f"wrote {out}" in result.stdout
    record = corank.inspect(out)
    before = corank.inspect(made / "model.safetensors")
    assert [layer["rank"] for layer in record["layers"]] == [layer["rank"] for layer in before["layers"]]
    assert record["stored_bytes"] < before["stored_bytes"]
    shown = json.loads(invoke(*words, "--json").stdout)
    assert shown["bytes"] == out.stat().st_size
    errors = [layer["relative_error"] for layer in shown["layers"].values()]
    assert 0 < max(errors) < 0.05 and min(errors) >= 0  # scales of one direction may take the factor exactly
    assert invoke(*words, "--quiet").output == ""


def test_refusals(invoke: Invoke, made: Path, exported: Path, tmp_path: Path) -> None:
    model, out = made / "model.safetensors", tmp_path / "out.safetensors"
    for words, message in (
        ([model, tmp_path / "none", "--out", out], "cannot be read"),
        ([model, exported, "--out", out, "--adapter-bits", "1"], "2 to 8"),
        ([model, exported, "--out", model], "would be overwritten"),
    ):
        result = invoke("import-peft", "digits", *words)
        assert result.exit_code == 2 and message in result.stderr, result.output
    assert not out.exists()
    (tmp_path / "file").write_text("")
    result = invoke("export", "digits", model, "--to", "peft", "--out", tmp_path / "file")
    assert result.exit_code == 1 and "a file stands there" in result.stderr
