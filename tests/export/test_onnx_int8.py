"""ONNX files that compute in int8: integer kernels, close outputs, what stays in float, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.data import ImageSet, load
from corank.export import TARGETS, ExportRequest, ExportResult, Int8, export_onnx_int8
from corank.export.int8_settings import sums_overflow
from corank.models.digits import digits_net

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("sklearn")

from corank.export.graph import coded_layers  # noqa: E402
from corank.export.onnx_session import kernels_of  # noqa: E402


def answer(path: Path, images: Tensor) -> Tensor:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


def constants(path: Path) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load("digits:train")


@pytest.fixture(scope="module")
def model(digits: ImageSet) -> nn.Module:
    return corank.quantize(
        digits_net(), digits, bits=4, budget=0.1, activations=8, samples=64, preset="nearest", search="greedy"
    )


@pytest.fixture(scope="module")
def made(model: nn.Module, digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    path = tmp_path_factory.mktemp("int8") / "digits.onnx"
    return export_onnx_int8(model, path, digits, settings=Int8(samples=48))


def test_it_follows_the_quantized_model(made: ExportResult, model: nn.Module) -> None:
    test = load("digits:test").tensor()
    expected, given = model(test), answer(made.path, test)
    assert float((given - expected).norm() / expected.norm()) < 0.03
    assert float((given.argmax(1) == expected.argmax(1)).float().mean()) > 0.985


def test_the_result_says_what_was_measured(made: ExportResult) -> None:
    assert made.size_bytes == made.path.stat().st_size
    assert made.float_bytes is not None and made.artifact_bytes is not None
    assert made.artifact_bytes < made.size_bytes < made.float_bytes
    assert made.agreement is not None and made.agreement > 95
    assert made.latency_ms is not None and made.relative_difference is not None
    assert any("in integers here, and 0 in float" in note for note in made.notes)


def test_every_layer_runs_in_integers(made: ExportResult, model: nn.Module) -> None:
    layers = len(corank.inspect(model)["layers"])
    assert kernels_of(made.path) == (layers, 0)
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]


def test_the_batch_is_open(made: ExportResult, digits: ImageSet) -> None:
    images = digits.tensor()[:7]
    one_by_one = torch.cat([answer(made.path, image[None]) for image in images])
    assert torch.allclose(answer(made.path, images), one_by_one, atol=1e-5)


def test_steps_of_the_plan_are_kept_where_only_layers_read(made: ExportResult, model: nn.Module) -> None:
    steps = [
        float(value) for name, value in constants(made.path).items() if name.endswith("_scale") and not value.shape
    ]
    for name, layer in coded_layers(model).items():
        rounding = layer.input_quantizer()
        assert rounding is not None
        found = any(step == pytest.approx(float(rounding.step), rel=1e-6) for step in steps)
        assert found is not (name.startswith("stage") and name.endswith(("1.conv1", "stage1.0.conv1"))), name


def test_logits_are_not_rounded(made: ExportResult, digits: ImageSet) -> None:
    logits = answer(made.path, digits.tensor()[:200])
    assert len(logits.unique()) > 1000


def test_weights_have_a_step_for_each_channel_and_seven_bits_where_asked(
    model: nn.Module, digits: ImageSet, tmp_path: Path
) -> None:
    settings = Int8(samples=16, reduce_range=True, float_layers=("stage1.0.conv1",))
    result = export_onnx_int8(model, tmp_path / "seven.onnx", digits.tensor(), settings=settings)
    held = constants(result.path)
    codes = {name: value for name, value in held.items() if name.endswith(".weight_quantized")}
    assert len(codes) == len(corank.inspect(model)["layers"]) - 1
    assert all(value.dtype == np.int8 and np.abs(value.astype(int)).max() <= 64 for value in codes.values())
    rows = held["stage2.0.conv1.weight_scale"]
    assert rows.shape == (codes["stage2.0.conv1.weight_quantized"].shape[0],)
    assert held["stage1.0.conv1.weight"].dtype == np.float32
    assert kernels_of(result.path) == (len(codes), 1)
    assert any("stage1.0.conv1" in note for note in result.notes) and any("7 bits" in note for note in result.notes)


def test_every_kind_of_layer(coded: nn.Module, images: Tensor, tmp_path: Path) -> None:
    result = export_onnx_int8(coded, tmp_path / "kinds.onnx", images)
    expected, given = coded(images), answer(result.path, images)
    assert float((given - expected).norm() / expected.norm()) < 0.03
    integer, floating = kernels_of(result.path)
    assert (integer, floating) == (8, 2), "transposed convolutions have no integer kernel; one layer runs twice"
    assert any("body.6, grow" in note for note in result.notes)


class Pooled(nn.Module):
    """Its first layer gives numbers of very different sizes, which the second needs all of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.third, self.head = nn.Conv2d(16, 64, 5, padding=2), nn.Linear(64, 10)
        sizes = 10.0 ** -torch.arange(16).div(4)
        with torch.no_grad():
            self.first.weight *= sizes[:, None, None, None]
            self.first.bias *= sizes  # pyright: ignore
            self.second.weight /= sizes[None, :, None, None]
            self.head.weight *= 30

    def forward(self, images: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.first(images)), 2)
        x = torch.relu(self.third(torch.relu(self.second(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def pooled() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    images = torch.randn(32, 3, 12, 12)
    return corank.quantize(Pooled().eval(), images, bits=8, budget=0.0, preset="nearest"), images


def test_harmed_layers_stay_in_float(pooled: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    model, images = pooled
    expected, lost = model(images), {}
    for share, kernels in ((0.0, (4, 0)), (0.2, (2, 2))):
        settings = Int8(float_share=share)
        result = export_onnx_int8(model, tmp_path / "pooled.onnx", images, settings=settings, tolerance=2.0)
        lost[share] = float((answer(result.path, images) - expected).norm() / expected.norm())
        assert kernels_of(result.path) == kernels
    assert any("first, second" in note for note in result.notes)
    assert lost[0.2] < 0.3 * lost[0.0]


def test_a_pool_behind_a_float_layer_is_not_moved_into_int8(pooled: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    model, images = pooled
    settings = Int8(float_layers=("first",), float_share=0)
    path = export_onnx_int8(model, tmp_path / "held.onnx", images, settings=settings, tolerance=2.0).path
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(tmp_path / "optimized.onnx")).graph.node
    writers = {value: node.op_type for node in nodes for value in node.output}
    (pool,) = (node for node in nodes if "MaxPool" in node.op_type)
    assert writers[pool.input[0]] == "Conv", Counter(writers.values())


def test_the_target_of_the_command_line(model: nn.Module, digits: ImageSet, tmp_path: Path) -> None:
    target = TARGETS["onnx-int8"]
    assert target.needs_images and not target.folder
    images = digits.sample(8, 0)
    result = target.export(ExportRequest(model, tmp_path / "out.onnx", images.tensor()[:1], images))
    assert result.target == "onnx-int8" and result.path.is_file()


def test_what_is_refused(model: nn.Module, digits: ImageSet, tmp_path: Path) -> None:
    images = digits.tensor()[:4]
    for settings, words in (
        ({"samples": 0}, "samples=0"),
        ({"float_share": 1.5}, "float_share=1.5"),
        ({"float_layers": "head"}, r"\('head',\)"),
    ):
        with pytest.raises(corank.ConfigError, match=words):
            Int8(**settings)
    path = tmp_path / "x.onnx"
    with pytest.raises(corank.ModelError, match="corank"):
        export_onnx_int8(digits_net(), path, images)
    with pytest.raises(corank.ModelError, match="matches none"):
        export_onnx_int8(model, path, images, settings=Int8(float_layers=("nothing",)))
    with pytest.raises(corank.DataError):
        export_onnx_int8(model, path, torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(corank.ModelError, match="tolerance="):
        export_onnx_int8(model, path, images, tolerance=1e-9)
    with pytest.raises(corank.OutputError):
        export_onnx_int8(model, tmp_path / "no" / "x.onnx", images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "flags", "overflow"),
    [
        ("x86_64", "fpu avx2 avx512f", True),
        ("x86_64", "fpu avx2 avx512_vnni", False),
        ("AMD64", "fpu avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", None, False),
    ],
)
def test_seven_bits_for_processors_whose_sums_overflow(
    machine: str, flags: str | None, overflow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text(*_args: Any, **_named: Any) -> str:
        if flags is None:
            raise FileNotFoundError
        return f"flags : {flags}\n"

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", text)
    assert sums_overflow() is overflow
    assert Int8(reduce_range=not overflow).seven_bits is not overflow
