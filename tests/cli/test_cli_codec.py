"""`--codec` and codecs in `--layer`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from corank.reports.fields import file_bits

Invoke = Callable[..., Result]


def test_a_codec_for_the_whole_network_and_others_for_some_layers(
    invoke: Invoke, quick: tuple[str, ...], tmp_path: Path
) -> None:
    words = (
        "--codec",
        "dense-shift",
        "--bits",
        "2",
        "--layer",
        "stage2.0.*=ternary",
        "--layer",
        "stage3.0.*=uniform:4",
    )
    result = invoke(
        "quantize", "digits", *quick, "--preset", "nearest", *words, "--out", tmp_path / "small.safetensors",
        "--save-plan", tmp_path / "plan.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["default"]["codec"] == {"kind": "dense-shift", "bits": 2}
    kinds = {name: layer["codec"]["kind"] for name, layer in plan["layers"].items() if "codec" in layer}
    assert kinds.pop("stage2.0.conv1") == "ternary" and kinds.pop("stage3.0.conv1") == "uniform"
    assert kinds["stem.0"] == "uniform"
    few = ("--data", "digits:train[:16]", "--plan", tmp_path / "plan.json")
    again = invoke("quantize", "digits", *few, "--out", tmp_path / "again.safetensors")
    assert again.exit_code == 0, again.output


def test_a_codec_alone_has_its_own_bits(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    words = ("--preset", "nearest", "--codec", "binary", "--record", tmp_path / "record.json")
    result = invoke("quantize", "digits", *quick, *words, "--out", tmp_path / "small.safetensors")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["bits"] == 1 and record["label"] == "nearest binary 1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--codec", "dense-shft"), "did you mean 'dense-shift'"),
        (("--codec", "dense-shift", "--bits", "8"), "DenseShift takes 2 to 4"),
        (("--codec", "dense-shift:9"), "DenseShift takes 2 to 4"),
        (("--layer", "stem.0=dense"), "no codec is called 'dense'"),
        (("--layer", "stem.0=binary:3"), "bits=3: Binary takes 1"),
        (("--codec", "binary", "--plan", "plan.json"), "--plan and --codec"),
    ],
)
def test_bad_options(invoke: Invoke, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    out = tmp_path / "small.safetensors"
    result = invoke("quantize", "nowhere:nothing", "--data", "nowhere", *words, "--out", out)
    assert result.exit_code != 0 and said in result.stderr
    assert not out.exists()


def test_inputs_are_clipped_where_asked(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    words = ("quantize", "digits", *quick, "--bits", "4", "--budget", "0", "--activations", "8")
    steps = {}
    for name in ("minmax", "kl"):
        out, record = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json"
        result = invoke(*words, "--activation-range", name, "--out", out, "--record", record)
        assert result.exit_code == 0, result.output
        steps[name] = [layer["input_step"] for layer in json.loads(record.read_text())["layers"]]
    assert all(kl <= whole * 1.001 for kl, whole in zip(steps["kl"], steps["minmax"], strict=True))
    assert steps["kl"] != steps["minmax"]
    for wrong, said in ((words[:-2], "add --activations 8"), (words, "mse, minmax, kl, kl-mass")):
        result = invoke(*wrong, "--activation-range", "entropy", "--out", tmp_path / "no.safetensors")
        assert result.exit_code == 2 and said in " ".join(result.output.split())


def test_a_rate_instead_of_bits(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    out, record = tmp_path / "small.safetensors", tmp_path / "small.json"
    words = ("quantize", "digits", *quick[:4], "--rate", "1.5", "--out", out, "--record", record)
    result = invoke(*words)
    assert result.exit_code == 0 and "as the file codes them" in result.stdout, result.output
    found = json.loads(record.read_text())
    assert found["label"] == f"fast rate-uniform {file_bits(found):.2f}" and found["stored_bytes"] == out.stat().st_size
    layers = found["layers"]
    assert {layer["rank"] for layer in layers} == {0} and 1.4 < file_bits(found) < 2.0
    for more in (("--bits", "3"), ("--codec", "kmeans"), ("--size", "60KB")):
        result = invoke(*words, *more)
        assert result.exit_code == 2 and "--rate" in result.stderr


def test_a_rate_for_a_size(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    words = ("quantize", "digits", *quick[:4], "--out", out)
    result = invoke(*words, "--rate", "auto", "--size", "45KB")
    assert result.exit_code == 0, result.output
    assert 44_000 < out.stat().st_size <= 45_000
    fixed = ("--rate", "auto", "--size", "45KB", "--coder", "fixed")
    for wrong, said in (
        (("--rate", "auto"), "add --size"),
        (("--rate", "lots"), "such as 1.9"),
        (fixed, "leave --coder fixed out"),
        (fixed[2:], "such as --search joint"),
    ):
        result = invoke(*words, *wrong)
        assert result.exit_code == 2 and said in " ".join(result.output.split())
