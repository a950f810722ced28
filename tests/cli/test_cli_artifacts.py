"""`corank evaluate`, `inspect` and `report`: on sound files and on damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import corank

Invoke = Callable[..., Result]
EVALUATE = ("--model", "digits", "--data", "digits:test")


def test_evaluate_is_bit_identical(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", made / "model.safetensors", *EVALUATE, "--reference", "--record", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    ours, theirs = (
        json.loads((tmp_path / "r.json").read_text()),
        json.loads((made / "record.json").read_text()),
    )
    for key in (
        "float_value",
        "quantized_value",
        "agreement",
        "kl",
        "stored_bytes",
        "equivalent_bits",
        "plan",
    ):
        assert ours[key] == theirs[key], key
    assert ours["command"] == "evaluate" and f"{theirs['quantized_value']:.2f} %" in result.stdout


def test_evaluate_without_reference_knows_no_float_value(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", made / "model.safetensors", *EVALUATE, "--record", tmp_path / "r.json", "--quiet")
    assert result.exit_code == 0 and result.output == ""
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["float_value"] is None and record["kl"] is None and record["quantized_value"] > 80


def test_evaluate_with_other_code(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text("import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))\n")
    words = ["--model", f"{code}:make", "--data", "digits:test", "--mean", "0", "--std", "1"]
    result = invoke("evaluate", made / "model.safetensors", *words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and "does not fit this Sequential" in result.stderr


def test_inspect_shows_and_writes(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("inspect", made / "model.safetensors", "--layers", "--record", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert "stage3.1.conv2" in result.stdout and "SHA-256 sound" in result.stdout
    as_json = invoke("inspect", made / "model.safetensors", "--json")
    shown, written = json.loads(as_json.stdout), json.loads((tmp_path / "r.json").read_text())
    assert shown["layers"] == written["layers"]
    assert shown["stored_bytes"] == (made / "model.safetensors").stat().st_size


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def future(data: bytes) -> bytes:
    return data[:-33] + bytes([data[-33] + 1]) + data[-32:]


def foreign(_data: bytes) -> bytes:
    return b"\x80\x04not a safetensors file"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "cannot be read"),
        (flip, "SHA-256 does not match"),
        (future, "upgrade corank"),
        (foreign, "cannot be"),
    ],
)
def test_damaged_artifacts(
    invoke: Invoke, made: Path, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(damage((made / "model.safetensors").read_bytes()))
    for words in (["inspect", bad], ["evaluate", bad, *EVALUATE]):
        result = invoke(*words)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and said in result.stderr
        assert result.stdout == ""


def test_report_from_records(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    result = invoke("report", made / "record.json", "--out", tmp_path / "new" / "report")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "new" / "report" / "index.html").read_text()
    assert "stage3.1.conv2" in page and "3+0.25" in page and "fast 3+0.25" in result.stdout


def test_report_may_be_called_by_name(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    result = invoke("report", made / "record.json", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"] and "page.html" in result.stdout
    (tmp_path / "file").write_text("mine")
    result = invoke("report", made / "record.json", "--out", tmp_path / "file" / "page.html")
    assert result.exit_code == 1 and "is not a folder" in result.stderr


def test_report_of_what_is_no_record(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    result = invoke("report", made / "plan.json", "--out", tmp_path / "report")
    assert result.exit_code == 2 and "is not a corank run record" in result.stderr
    assert not (tmp_path / "report").exists()


def test_version_and_help(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"corank {corank.__version__}\n"
    bare = invoke()
    assert all(name in bare.output for name in ("quantize", "evaluate", "inspect", "report", "demo"))
    assert invoke("inspect", "--no-such-option").exit_code == 2
