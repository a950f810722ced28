"""`corank export` to ONNX and OpenVINO: what is written and shown, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from corank.export import TARGETS

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    ("target", "name", "package"),
    [("onnx", "digits.onnx", "onnxruntime"), ("openvino", "digits.xml", "openvino")],
)
def test_a_file_is_written_and_compared(
    invoke: Invoke, made: Path, tmp_path: Path, target: str, name: str, package: str
) -> None:
    pytest.importorskip(package)
    words = ["export", "digits", made / "model.safetensors", "--to", target, "--out", tmp_path / name]
    result = invoke(*words, "--input", "1x1x8x8", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["target"] == target and shown["relative_difference"] < 1e-4
    assert sorted(Path(file) for file in shown["files"]) == sorted(tmp_path.iterdir())
    assert shown["artifact_bytes"] == (made / "model.safetensors").stat().st_size
    assert shown["size_bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_images_are_an_example_too(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    words = ["export", "digits", made / "model.safetensors", "--to", "onnx", "--out", tmp_path / "digits.onnx"]
    result = invoke(*words, "--data", "digits:test")
    assert result.exit_code == 0, result.output
    assert "over the largest output" in result.stdout and "session.disable_quant_qdq=1" in result.stdout
    assert f"wrote {tmp_path / 'digits.onnx'}" in result.stdout
    quiet = invoke(*words, "--data", "digits:test", "--quiet")
    assert quiet.exit_code == 0 and quiet.output == ""


def test_what_is_refused(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    artifact = made / "model.safetensors"
    for words, said in (
        (("--to", "tflite", "--out", tmp_path / "x"), f"--to tflite: give one of {', '.join(TARGETS)}"),
        (
            ("--to", "onnx-int8", "--out", tmp_path / "x", "--past"),
            "--past goes with --to onnx, onnx-dense, onnx-matmul",
        ),
        (("--to", "onnx", "--out", tmp_path / "x", "--input", "1x8", "--past"), "past=True the example is token ids"),
        (("--to", "onnx", "--out", tmp_path / "x", "--input", "8x"), "--input 8x: give sizes"),
        (("--to", "onnx", "--out", tmp_path / "x", "--input", "1x3x9999999x99999"), "give sizes"),
        (("--to", "onnx", "--out", tmp_path / "x"), "give --input"),
        (("--to", "onnx", "--out", tmp_path / "x", "--input", "1x3x8x8"), "could not run"),
        (("--to", "onnx", "--out", artifact, "--input", "1x1x8x8"), "would be overwritten"),
        (("--to", "openvino", "--out", tmp_path / "x.onnx", "--input", "1x1x8x8"), "x.xml"),
    ):
        result = invoke("export", "digits", artifact, *words)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and said in result.stderr.replace("\n", " "), result.stderr
    missing = invoke("export", "digits", artifact, "--to", "onnx", "--out", tmp_path / "no" / "x", "--input", "1x1x8x8")
    assert missing.exit_code == 1 and "there is no folder" in missing.stderr
    assert not list(tmp_path.iterdir())
