"""`corank quantize`: what it writes, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from corank.codecs import RateUniform
from corank.models.digits import digits_net
from corank.plan import Plan

Invoke = Callable[..., Result]
# fmt: off
KEYS = {
    "command", "version", "model", "seed", "metric", "float_value", "quantized_value", "bits", "budget",
    "preset", "search", "equivalent_bits", "stored_bytes", "float_bytes", "iterations", "seconds",
    "peak_memory_bytes", "label", "layers", "skipped", "search_history", "plan", "reproduce",
    "weights_sha256", "agreement", "kl",
}
LAYER_KEYS = {
    "name", "shape", "bits", "rank", "max_rank", "bytes", "relative_output_error", "spectrum", "inputs", "input_step",
    "coder", "bits_per_weight", "file_bits_per_weight", "relative_entropy",
    "input_offset", "stored_bits", "code_counts", "code_entropy", "weight_range", "coded_counts", "float_counts",
}
# fmt: on


def record_of(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


def sha256_in(path: Path) -> str:
    """The hash over an artifact's header and numbers, with which it ends."""
    return path.read_bytes()[-32:].hex()


def test_record_says_everything(made: Path) -> None:
    record = record_of(made)
    assert set(record) >= KEYS
    assert all(set(layer) == LAYER_KEYS for layer in record["layers"])
    assert (record["command"], record["model"], record["bits"], record["budget"]) == (
        "quantize",
        "digits",
        3,
        0.25,
    )
    assert record["float_value"] > 90 and record["quantized_value"] > 80
    assert 0 < record["kl"] < 1 and record["agreement"] > 80
    assert record["seconds"] > 0 and record["peak_memory_bytes"] > 50_000_000
    assert record["reproduce"].startswith("corank quantize digits --data digits:train --samples 64")


def test_stored_bytes_are_the_files_size(made: Path) -> None:
    assert record_of(made)["stored_bytes"] == (made / "model.safetensors").stat().st_size


def test_same_seed_same_contents_and_without_eval_no_values(
    invoke: Invoke, quick: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    out, record = tmp_path / "again.safetensors", tmp_path / "record.json"
    result = invoke("quantize", "digits", *quick, "--bits", "3", "--budget", "0.25", "--out", out, "--record", record)
    assert result.exit_code == 0, result.output
    assert sha256_in(out) == sha256_in(made / "model.safetensors")
    written = record_of(tmp_path)
    assert [written[key] for key in ("float_value", "quantized_value", "agreement", "kl")] == [None] * 4


def test_search_history_names_the_budget(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(
        "quantize", "digits", "--data", "digits:train[:32]", "--bits", "2", "--budget", "0.3",
        "--out", tmp_path / "model.safetensors", "--record", tmp_path / "record.json", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output == ""
    record = record_of(tmp_path)
    assert len(record["search_history"]) == record["iterations"] > 0
    assert set(record["search_history"][0]) == {
        "iteration",
        "loss",
        "divergence",
        "extra_bits",
        "budget_bits",
    }
    assert {step["budget_bits"] for step in record["search_history"]} == {0.3}


def test_layer_patterns(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(
        "quantize", "digits", *quick, "--bits", "3", "--layer", "stage1.*=5", "--layer", "*.shortcut.0=float",
        "--out", tmp_path / "model.safetensors", "--record", tmp_path / "record.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path)
    bits = {layer["name"]: layer["bits"] for layer in record["layers"]}
    assert bits["stage1.0.conv1"] == 5 and bits["stage2.0.conv1"] == 3 and bits["stem.0"] == 8
    assert "stage2.0.shortcut.0" not in bits and "stage2.0.shortcut.0" in record["skipped"]
    assert "stage2.0.shortcut.0" in result.stdout


def test_plan_round_trip(invoke: Invoke, quick: tuple[str, ...], made: Path, tmp_path: Path) -> None:
    data = quick[:4]
    result = invoke(
        "quantize", "digits", *data, "--plan", made / "plan.json", "--out", tmp_path / "model.safetensors",
        "--record", tmp_path / "record.json", "--save-plan", tmp_path / "plan.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plan.json").read_text() == (made / "plan.json").read_text()
    again, first = record_of(tmp_path), record_of(made)
    for ours, theirs in zip(again["layers"], first["layers"], strict=True):
        assert (ours["name"], ours["bits"], ours["rank"]) == (theirs["name"], theirs["bits"], theirs["rank"])


def test_size_is_kept(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    result = invoke("quantize", "digits", *quick, "--size", "70KB", "--out", out)
    assert result.exit_code == 0, result.output
    assert 60_000 < out.stat().st_size <= 70_000


@pytest.mark.parametrize("coder", ["fixed", "huffman"])
def test_the_coder_is_that_of_the_file_and_of_the_record(
    invoke: Invoke, quick: tuple[str, ...], tmp_path: Path, coder: str
) -> None:
    out, record = tmp_path / "model.safetensors", tmp_path / "record.json"
    result = invoke(
        "quantize", "digits", *quick, "--preset", "nearest", "--bits", "4", "--budget", "0", "--coder", coder,
        "--out", out, "--record", record,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    about = record_of(tmp_path)
    assert about["stored_bytes"] == out.stat().st_size
    assert {layer["coder"] for layer in about["layers"]} <= {"fixed", coder}
    assert (about["stored_bytes"] < about["fixed_bytes"]) is (coder != "fixed")
    shown = invoke("inspect", out, "--layers")
    assert ("of the file saved, by huffman" in shown.stdout) is (coder != "fixed")
    assert "entropy as coded" in shown.stdout


def test_max_drop(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(
        "quantize", "digits", "--data", "digits:train", "--samples", "64", "--preset", "nearest",
        "--max-drop", "2", "--eval", "digits:test", "--out", tmp_path / "model.safetensors",
        "--record", tmp_path / "record.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path)
    assert record["float_value"] - record["quantized_value"] <= 2
    assert record["stored_bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert record["stored_bytes"] in [trial["stored_bytes"] for trial in record["tried"]]
    for trial in record["tried"]:
        assert f"{trial['bits']:g} bits" in result.stdout and f"{trial['drop']:.2f} points in" in result.stdout


def test_max_drop_with_rates_and_exceptions(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(
        "quantize", "digits", "--data", "digits:train", "--samples", "64", "--rate", "auto", "--max-drop", "1",
        "--eval", "digits:test", "--layer", "stage1.*=4", "--checkpoint", tmp_path / "kept",
        "--out", tmp_path / "model.safetensors", "--save-plan", tmp_path / "plan.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    layers = Plan.load(tmp_path / "plan.json").layers
    codecs = {name: layer.codec for name, layer in layers.items() if name.startswith("stage")}
    rates = {name: codec.rate for name, codec in codecs.items() if isinstance(codec, RateUniform)}
    assert {rate for name, rate in rates.items() if name.startswith("stage1.")} == {4}
    assert min(rates.values()) < 3


def test_unlabelled_eval_gives_agreement_only(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    code = tmp_path / "images.py"
    code.write_text("import numpy\ndef images():\n    return numpy.zeros((8, 8, 8, 1), numpy.uint8)\n")
    result = invoke(
        "quantize", "digits", *quick, "--eval", f"{code}:images", "--out", tmp_path / "model.safetensors",
        "--record", tmp_path / "record.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path)
    assert record["float_value"] is None and record["quantized_value"] is None
    assert record["agreement"] is not None and record["kl"] is not None


def test_weights_file_and_random_warning(invoke: Invoke, quick: tuple[str, ...], tmp_path: Path) -> None:
    save_file(digits_net().state_dict(), tmp_path / "weights.safetensors")
    code = tmp_path / "net.py"
    code.write_text("from corank.models.digits import DigitsNet\ndef make():\n    return DigitsNet()\n")
    words = ["quantize", f"{code}:make", *quick, "--preset", "nearest", "--mean", "0", "--std", "1"]
    outputs = ["--out", tmp_path / "model.safetensors", "--record", tmp_path / "record.json"]
    result = invoke(*words, *outputs)
    assert result.exit_code == 0, result.output
    assert "warning: the weights of" in result.stderr and "RANDOM" in result.stderr
    assert record_of(tmp_path)["weights_sha256"] is None

    result = invoke(*words, *outputs, "--weights", tmp_path / "weights.safetensors", "--eval", "digits:test")
    assert result.exit_code == 0, result.output
    assert "RANDOM" not in result.stderr
    record = record_of(tmp_path)
    assert record["weights_sha256"] == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert record["float_value"] > 90


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", "conv9*=4"], "'conv9*' matches none of the 16 layers"),
        (["--layer", "stem.0"], "give PATTERN=BITS or PATTERN=float"),
        (["--layer", "stem.0=9"], "1 to 8 bits"),
        (["--bits", "9"], "bits=9"),
        (["--coder", "zip"], "no coder is called 'zip'"),
        (["--bits", "0"], "bits=0"),
        (["--budget", "-1"], "budget=-1"),
        (["--budget", "0.000001"], "the cheapest adapter takes"),
        (["--size", "1KB"], "what has no rate"),
        (["--size", "1KB", "--search", "joint"], "the smallest with 1-bit codes"),
        (["--size", "tiny"], "1.2MB"),
        (["--size", "70KB", "--budget", "0.1"], "--size and --budget"),
        (["--preset", "fats"], "did you mean 'fast'"),
        (["--seed", "-1"], "seed=-1"),
        (["--samples", "0"], "samples=0"),
        (["--max-drop", "1"], "add --eval DATA"),
        (["--max-drop", "1", "--bits", "3", "--eval", "digits:test"], "--max-drop and --bits"),
        (["--max-drop", "1", "--rate", "2", "--eval", "digits:test"], "--rate and --max-drop"),
        (["--plan", "missing.json"], "cannot read a plan from missing.json"),
        (["--plan", "missing.json", "--bits", "3"], "--plan and --bits"),
        (["--mean", "a,b,c"], "--mean 0.485"),
        (["--mean", "1,2", "--std", "1,2"], "channels is 2"),
        (["--device", "abacus"], "--device abacus cannot be used here"),
        (["--eval", "nowhere"], "no data at 'nowhere'"),
        (["--weights", "missing.pt"], "missing.pt"),
    ],
)
def test_bad_options_leave_the_output_as_it_was(invoke: Invoke, tmp_path: Path, words: list[str], said: str) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"precious")
    result = invoke("quantize", "digits", "--data", "digits:train[:16]", *words, "--out", out)
    assert result.exit_code == 2, result.output
    assert said in result.stderr and result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""
    assert out.read_bytes() == b"precious" and list(tmp_path.iterdir()) == [out]


def test_library_errors_of_the_model(invoke: Invoke, tmp_path: Path) -> None:
    code = tmp_path / "nets.py"
    code.write_text(
        "import torch\nfrom corank.models.digits import DigitsNet, digits_net\n"
        "def nan():\n    net = digits_net()\n    net.head.weight.data[0, 0] = float('nan')\n    return net\n"
        "def plain():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())\n"
        "def broken():\n    raise RuntimeError('no such luck')\n"
    )
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    out = tmp_path / "model.safetensors"
    words = ["--pretrained", "--data", "digits:train[:16]", "--mean", "0", "--std", "1", "--out", out]
    for factory, said in (
        ("nan", "head"),
        ("plain", "layer"),
        ("broken", "no such luck"),
        ("absent", "absent"),
    ):
        result = invoke("quantize", f"{code}:{factory}", *words)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and said in result.stderr
    result = invoke("quantize", "digits", "--weights", tmp_path / "other.safetensors", *words[1:])
    assert result.exit_code == 2 and "does not fit the model" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("option", ["--out", "--record", "--save-plan", "--report"])
def test_unwritable_outputs_are_found_before_the_work(invoke: Invoke, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("x")
    words = {"--out": tmp_path / "model.safetensors", option: tmp_path / "file" / "deep" / "x"}
    given = [word for pair in words.items() for word in pair]
    # No such data: were the outputs not checked first, that would be the error.
    result = invoke("quantize", "digits", "--data", "nowhere", *given)
    assert result.exit_code == 1, result.output
    assert "error: cannot write" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_outputs_may_not_meet(invoke: Invoke, made: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    result = invoke("quantize", "digits", "--data", "digits", "--out", one, "--record", one)
    assert result.exit_code == 2 and "would be overwritten" in result.stderr
    before = (made / "plan.json").read_bytes()
    result = invoke("quantize", "digits", "--data", "digits", "--plan", made / "plan.json", "--out", made / "plan.json")
    assert result.exit_code == 2 and "would be overwritten" in result.stderr
    assert (made / "plan.json").read_bytes() == before


def test_what_is_read_is_not_overwritten(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from corank.models.digits import digits_net as make\nfrom corank.data import load\n"
    code += "def images():\n    return load('digits:train').sample(8, 0).images\n"
    for name in ("net.py", "images.npz", "few.zip"):
        (tmp_path / name).write_text(code)
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    for model, data, out in (
        ("net.py:make", "digits:train", "net.py"),
        ("net.py:make", "digits:train", tmp_path / "net.py"),
        ("digits", "net.py:images", "net.py"),
        ("digits", "images.npz", "images.npz"),
        ("digits", "images.npz[:100]", "./images.npz"),
        ("digits", "few.zip", "few.zip"),
        (f"hf:{folder}", "digits:train", folder / "model.safetensors"),
    ):
        result = invoke("quantize", model, "--data", data, "--out", out)
        assert result.exit_code == 2 and "would be overwritten" in result.stderr, (model, data, result.output)
    result = invoke("quantize", "digits", "--data", "digits:train", "--eval", "few.zip[1::2]", "--out", "few.zip")
    assert result.exit_code == 2 and "would be overwritten" in result.stderr
    assert (tmp_path / "net.py").read_text() == code and (folder / "model.safetensors").read_bytes() == b"weights"
