"""On a real GPU, where there is one: every kind of layer, codec, preset and dtype is coded as well as on the CPU.

Sums have another order there, so codes need not be equal: the distance from the float network is compared. Which
tensors may meet is the business of `test_pretend_device.py`, which needs no GPU.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend.networks import IMAGES, KINDS, LABELS, TOKENS, convolutional, data_of, language_model
from torch import Tensor, nn

import corank
from corank.codecs import CODECS
from corank.coding import place
from corank.presets import PRESETS
from corank.rounding import ROUNDERS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
COMMON: dict[str, Any] = {"samples": 8, "batch_size": 4, "search": "greedy"}
FEW = corank.Refinement(iterations=5, batch_size=8)


@pytest.fixture(params=["small layers on the CPU", "all layers on the GPU"])
def coded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "all layers on the GPU":
        monkeypatch.setattr(place, "_COLUMN_BY_COLUMN", 0)
        monkeypatch.setattr(place, "_ALL_AT_ONCE", 0)


def devices(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers())}


def outputs(model: nn.Module, data: Any) -> Tensor:
    """In exact float32, on the CPU."""
    with torch.no_grad(), corank.exact_float32():
        found = model(data.to(next(iter(devices(model)))))
    return (found if isinstance(found, Tensor) else found.logits).float().cpu()


def lost(model: nn.Module, small: nn.Module, data: Any) -> float:
    """Energy of the difference over that of the float outputs."""
    expected = outputs(model, data)
    return float((outputs(small, data) - expected).square().sum() / expected.square().sum())


def check(model: nn.Module, data: Any, tmp_path: Path, slack: float = 1.5, **asked: Any) -> nn.Module:
    """Coded on the GPU about as well as on the CPU; its file gives the same on both."""
    there, given = copy.deepcopy(model).to(CUDA), {**COMMON, **asked}
    small = corank.quantize(there, data, device="cuda", **given)
    assert devices(small) == devices(there) == {CUDA}
    plain = corank.quantize(model, data, device="cpu", **given)
    assert lost(model, small, data) <= slack * lost(model, plain, data) + 1e-4
    path = tmp_path / "small.safetensors"
    corank.save(small, path)
    expected = outputs(small, data)
    wide = next(model.parameters()).dtype in (torch.float32, torch.float64)
    for device in (CPU, CUDA):
        loaded = corank.load(path, model, device=device)
        assert devices(loaded) == {device}
        tolerance = 1e-4 if wide else 5e-2
        torch.testing.assert_close(outputs(loaded, data), expected, atol=tolerance, rtol=tolerance)
    return small


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("coded")
def test_every_kind_of_layer(kind: str, tmp_path: Path) -> None:
    check(KINDS[kind][0](), data_of(kind), tmp_path, bits=4, budget=6.0)


@pytest.mark.parametrize("codec", sorted(set(CODECS) - {"levels"}))
@pytest.mark.usefixtures("coded")
def test_every_codec(codec: str, tmp_path: Path) -> None:
    check(convolutional(), IMAGES, tmp_path, codec=codec, budget=0)


@pytest.mark.parametrize("rounder", ROUNDERS)
@pytest.mark.usefixtures("coded")
def test_every_rounder(rounder: str, tmp_path: Path) -> None:
    fast = PRESETS["fast"]
    recipe = replace(fast, layer=replace(fast.layer, rounder=ROUNDERS[rounder]()))
    slack = 3.0 if rounder == "stochastic" else 1.5
    check(convolutional(), IMAGES, tmp_path, slack, preset=recipe, bits=4, budget=0)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("search", ["cora", "greedy", "joint", "uniform"])
def test_every_preset_and_search(preset: str, search: str, tmp_path: Path) -> None:
    chosen: Any = corank.CoRa(iterations=5, batch_size=4) if search == "cora" else search
    how = FEW if preset == "best" else None
    check(convolutional(), IMAGES, tmp_path, 2.0, preset=preset, search=chosen, bits=4, budget=0.5, refinement=how)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    model, data = convolutional().to(dtype), IMAGES.to(dtype)
    how = {"bits": 4, "budget": 0.5, "activations": 8}
    cora, blocks = corank.CoRa(iterations=5, batch_size=4), corank.BlockReconstruction(5, 4)
    check(model, data, tmp_path, 2.0, **how, search=cora)
    check(model, data, tmp_path, 2.0, **how, preset="best", refinement=FEW)
    check(model, data, tmp_path, 2.0, **how, preset="nearest", refinement=blocks)


def test_rates_and_sizes(tmp_path: Path) -> None:
    check(convolutional(), IMAGES, tmp_path, rate=3.0, search=None)
    check(convolutional(), IMAGES, tmp_path, rate="auto", size="6KB", search=None)


@pytest.mark.parametrize("way", ["mse", "minmax", "kl", "kl-mass"])
def test_rounded_inputs(way: str, tmp_path: Path) -> None:
    check(convolutional(), IMAGES, tmp_path, bits=8, activations=8, activation_range=way, budget=0)


def test_goes_back_to_where_the_model_was() -> None:
    here, there = convolutional(), convolutional().to(CUDA)
    for model, device in ((here, "cuda"), (there, "cpu"), (here, "auto"), (there, "auto")):
        small = corank.quantize(model, IMAGES, bits=4, budget=0, device=device, **COMMON)
        assert devices(small) == devices(model)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    model, stopped = convolutional().to(CUDA), []
    asked: dict[str, Any] = {**COMMON, "bits": 4, "budget": 0, "preset": "best", "device": "cuda"}
    asked["refinement"] = corank.Refinement(iterations=30, batch_size=8)

    def stop(what: str, done: int, _total: int) -> None:
        if what == "refining" and done == 27:
            stopped.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corank.quantize(model, IMAGES, checkpoint=tmp_path, progress=stop, **asked)
    again = corank.quantize(model, IMAGES, checkpoint=tmp_path, **asked)
    assert stopped and lost(model, again, IMAGES) < 0.1


def test_exact_float32_is_the_cpu_s() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()
    data, there = torch.randn(8, 64, 16, 16), copy.deepcopy(model).to(CUDA)
    expected = outputs(model, data)
    assert float((outputs(there, data) - expected).norm() / expected.norm()) < 1e-6
    labelled = [(data, torch.zeros(8, dtype=torch.long))]
    wide = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    elsewhere = corank.evaluate(wide, labelled, wide, device="cuda")
    assert elsewhere.top1 == corank.evaluate(wide, labelled).top1 and (elsewhere.kl or 0) < 1e-6


def test_evaluation_takes_batches_and_models_of_any_device() -> None:
    model, there = convolutional(), convolutional().to(CUDA)
    here = corank.evaluate(model, [(IMAGES, LABELS)])
    for one in ((IMAGES, LABELS), (IMAGES.to(CUDA), LABELS.to(CUDA)), (IMAGES, LABELS.to(CUDA))):
        assert corank.evaluate(there, [one], model).top1 == here.top1


def test_language_models(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for asked in ({"rate": 4.0, "search": None}, {"bits": 4, "budget": 0.5}):
        small = check(language_model(), TOKENS, tmp_path, **asked)
        assert corank.evaluate(small, TOKENS, language_model()).nats is not None


def test_files_of_other_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from corank.export import export_onnx

    small = corank.quantize(convolutional().to(CUDA), IMAGES, bits=4, budget=0.5, **COMMON)
    export_onnx(small, tmp_path / "small.onnx", IMAGES[:2].to(CUDA))
