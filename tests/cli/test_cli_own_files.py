"""Files of the caller's own: factories, functions that return batches, checkpoints as people have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from corank.models.digits import digits_net

Invoke = Callable[..., Result]

CODE = """
import torch
from torch import nn
from corank.models.digits import DigitsNet, digits_net

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 16), nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, image, mask):
        return self.head(torch.relu(self.a(image) + self.b(mask)))

def trained():
    model, generator = Two(), torch.Generator().manual_seed(0)
    state = model.state_dict()
    model.load_state_dict({name: torch.randn(value.shape, generator=generator) for name, value in state.items()})
    return model

def half():
    return trained().bfloat16()

def numbers(count):
    return torch.randn(64, count, generator=torch.Generator().manual_seed(count))

def pairs():
    return {"image": numbers(8), "mask": numbers(6)}

def halves():
    return {name: value.bfloat16() for name, value in pairs().items()}

def labelled():
    with torch.no_grad():
        return [{**pairs(), "labels": trained()(**pairs()).argmax(1)}]

def digits():
    return digits_net()

def said():
    return digits_net(), {"mean": (0.0,), "std": (1.0,), "size": 8}

def pixels():
    return torch.randn(16, 1, 8, 8)

def fresh():
    return DigitsNet()

def new_head():
    model = digits_net()
    model.head = nn.Linear(64, 10)
    return model
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path / "nets.py"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Grey images in two classes."""
    draw = np.random.RandomState(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = draw.randint(0, 255, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


NEAREST = ("--preset", "nearest", "--bits", "4", "--quiet")


def said(result: Result) -> str:
    return result.stderr.replace("\n", " ")


def test_models_of_several_inputs(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out, record = tmp_path / "two.safetensors", tmp_path / "two.json"
    words = ["--data", f"{nets}:pairs", "--eval", f"{nets}:labelled[:40]", "--out", out, "--record", record, *NEAREST]
    result = invoke("quantize", f"{nets}:trained", *words)
    assert result.exit_code == 0 and result.stderr == "", result.output
    made = json.loads(record.read_text())
    assert made["float_value"] == 100 and made["eval_samples"] == 40 and made["random_weights"] is False
    assert made["weights"] == f"{nets}:trained"
    result = invoke("evaluate", out, "--model", f"{nets}:trained", "--data", f"{nets}:labelled", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["eval_samples"] == 64
    words = ["--to", "onnx", "--out", tmp_path / "two.onnx", "--data", f"{nets}:pairs", "--record", record]
    result = invoke("export", f"{nets}:trained", out, *words, "--quiet")
    assert result.exit_code == 0 and result.output == "", result.output
    shown = json.loads(record.read_text())
    assert shown["command"] == "export" and shown["relative_difference"] < 1e-4 and shown["model"] == f"{nets}:trained"
    assert shown["reproduce"].startswith("corank export ") and shown["files"] == [str(tmp_path / "two.onnx")]


def test_batches_without_labels(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    words = ["--data", f"{nets}:pairs", "--eval", f"{nets}:pairs", "--out", tmp_path / "two.safetensors"]
    result = invoke("quantize", f"{nets}:trained", *words, "--preset", "nearest")
    assert result.exit_code == 0 and "same class as float" in result.stdout, result.output


def test_a_file_of_another_precision_is_scored_in_the_models(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    assert invoke("quantize", f"{nets}:half", "--data", f"{nets}:halves", "--out", out, *NEAREST).exit_code == 0
    result = invoke("evaluate", out, "--model", f"{nets}:trained", "--data", f"{nets}:labelled", "--reference")
    assert result.exit_code == 0 and "warning" not in result.stderr and "top-1" in result.stdout, result.output


def test_a_preprocessing_that_nobody_states(invoke: Invoke, nets: Path, photos: Path, tmp_path: Path) -> None:
    words = ["--data", photos, "--out", tmp_path / "d.safetensors", *NEAREST]
    result = invoke("quantize", f"{nets}:digits", *words)
    assert result.exit_code == 2 and "warning: nothing says how" in said(result)
    assert "--mean 0.485,0.456,0.406 --std" in said(result) and "--mean 0.5 --std 0.5" in said(result)
    assert "the network reads images of 1 channel, and these have 3" in said(result)
    for model, more in ((f"{nets}:digits", ["--mean", "0", "--std", "1"]), (f"{nets}:said", []), ("digits", [])):
        result = invoke("quantize", model, *words, *more)
        assert result.exit_code == 0 and result.output == "", result.output


def test_numbers_need_no_preprocessing(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    words = ["--data", f"{nets}:pixels", "--out", tmp_path / "d.safetensors", *NEAREST]
    result = invoke("quantize", f"{nets}:digits", *words)
    assert result.exit_code == 0 and result.output == "", result.output


def test_random_weights_are_said_where_they_are(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    words = ["--data", f"{nets}:pixels", "--out", tmp_path / "d.safetensors", *NEAREST]
    for name, expected in (
        ("fresh", "the weights of .*:fresh are RANDOM: they differ each time it is called"),
        ("new_head", r"part of the weights of .*:new_head is RANDOM \(head\.weight\)"),
    ):
        result = invoke("quantize", f"{nets}:{name}", *words)
        assert result.exit_code == 0
        assert re.search(expected, said(result)), result.output


def test_checkpoints_as_people_have_them(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    state = digits_net().state_dict()
    moving = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "model": {f"_orig_mod.{name}": value for name, value in state.items()}, "ema": moving},
               tmp_path / "last.ckpt")  # fmt: skip
    words = ["--data", f"{nets}:pixels", "--out", tmp_path / "d.safetensors", *NEAREST]
    result = invoke("quantize", f"{nets}:fresh", "--weights", tmp_path / "last.ckpt", *words)
    assert result.exit_code == 0 and "warning: " in result.stderr, result.output
    assert f"'ema', which often scores better; the weights as they were trained are taken: give {tmp_path}" in said(
        result
    )
    result = invoke("quantize", f"{nets}:fresh", "--weights", f"{tmp_path / 'last.ckpt'}:ema", *words)
    assert result.exit_code == 0 and result.output == "", result.output
    result = invoke("quantize", f"{nets}:fresh", "--weights", f"{tmp_path / 'last.ckpt'}:best", *words)
    assert result.exit_code == 2 and "has no 'best': it holds model, ema" in said(result)


def test_weights_are_not_overwritten(invoke: Invoke, nets: Path, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for name, weights in (("w.safetensors", "w.safetensors:ema"), ("net/model.safetensors", "net")):
        (tmp_path / name).write_bytes(b"weights")
        words = ["--weights", tmp_path / weights, "--data", f"{nets}:pixels", "--out", tmp_path / name]
        result = invoke("quantize", f"{nets}:fresh", *words)
        assert result.exit_code == 2 and "would be overwritten" in said(result), result.output


def test_names_of_another_kind_of_file(
    invoke: Invoke, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = str(made / "model.safetensors")
    exported = ("export", "digits", artifact, "--input", "1x1x8x8")
    quantized = ("quantize", "digits", "--data", "digits:train")
    for words, expected in (
        ((*quantized, "--out", "m.onnx"), "--out m.onnx: .onnx is ONNX"),
        ((*quantized, "--out", "m.PT"), "what is written is .safetensors; give m.safetensors"),
        ((*quantized, "--out", "m.safetensors", "--record", "r.html"), "--record r.html: .html is a report"),
        ((*quantized, "--out", "m.safetensors", "--save-plan", "p.npz"), "give p.json"),
        ((*exported, "--to", "onnx", "--out", "m.safetensors"), "what is written is .onnx; give m.onnx"),
        ((*exported, "--to", "onnx-int8", "--out", "m.xml"), "what is written is .onnx; give m.onnx"),
        ((*exported, "--to", "openvino", "--out", "m.bin"), "what is written is .xml; give m.xml"),
        ((*exported, "--to", "peft", "--out", "m.safetensors"), "what is written is a folder; give m"),
        (
            ("evaluate", artifact, "--model", "digits", "--data", "digits:test", "--record", "r.safetensors"),
            "give r.json",
        ),
    ):
        result = invoke(*words)
        assert result.exit_code == 2 and expected in said(result), result.output
    assert not list(tmp_path.iterdir())
