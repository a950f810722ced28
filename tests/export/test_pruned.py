"""Pruned networks in the files of other runtimes, as float ones are: written, run, and loaded where they are loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from pruning.networks import images, network
from torch import Tensor, nn

import corank
from corank.export import export_onnx, export_onnx_int8, export_openvino
from corank.export.peft import export_peft, load_peft_base

pytest.importorskip("torch_pruning")
pytest.importorskip("onnxscript")


@cache
def coded(name: str) -> tuple[nn.Module, Tensor]:
    """A network without 30 % of its multiply-adds, at 4 bits with adapters, and what it is run with."""
    small = corank.prune(network(name), images(name), 0.3, "magnitude", iterations=0)
    return corank.quantize(small, images(name), bits=4, budget=2.0, preset="nearest", search="uniform"), images(name)


def test_onnx(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, example = coded("residual")
    export_onnx(model, tmp_path / "model.onnx", example)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.no_grad():
        expected = model(example)
    assert torch.allclose(torch.from_numpy(output), expected, atol=1e-4 * float(expected.abs().max()))


def test_onnx_int8(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model, example = coded("residual")
    export_onnx_int8(model, tmp_path / "model.onnx", example, tolerance=0.5)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.no_grad():
        expected = model(example)
    assert float((torch.from_numpy(output) - expected).abs().max()) < 0.5 * float(expected.abs().max())


def test_openvino(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    model, example = coded("residual")
    export_openvino(model, tmp_path / "model.xml", example)
    network_there = ov.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        expected = model(example)
    output = torch.from_numpy(network_there(example.numpy())[0])
    assert torch.allclose(output, expected, atol=1e-4 * float(expected.abs().max()))


def test_peft(tmp_path: Path) -> None:
    """The base loads into the network as its class makes it, narrowed by what the folder says."""
    peft = pytest.importorskip("peft")
    model, example = coded("joined")
    export_peft(model, tmp_path, example)
    base = load_peft_base(tmp_path, network("joined"))
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    with torch.no_grad():
        expected = model(example)
        assert torch.allclose(loaded(example), expected, atol=1e-4 * float(expected.abs().max()))
