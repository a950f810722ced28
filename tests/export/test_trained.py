"""Networks that trained with low-bit weights and inputs: exported with their own steps, run, compared, read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import corank
from corank.export import ExportResult, Int8, export_onnx, export_onnx_int8
from corank.layers import CodedLayer
from corank.reports import write_record, write_report
from corank.training import Optimizer
from corank.training.recipes import chosen_recipe

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def network() -> nn.Module:
    """A plain, a grouped and a depthwise convolution, with norms that do something, and a linear layer."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2), nn.BatchNorm2d(8, momentum=1.0), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5),
    )  # fmt: skip
    with torch.no_grad():
        model(IMAGES)  # in training mode: statistics of these images
    return model.eval()


@dataclass(frozen=True)
class Trained:
    """A network that trained, the one it started from, and its file."""

    model: nn.Module
    start: nn.Module
    file: Path

    def steps(self) -> dict[str, float]:
        """The step of each layer's inputs."""
        return {layer["name"]: layer["input_step"] for layer in corank.inspect(self.file)["layers"]}


@pytest.fixture(scope="module", params=["lsq-w8a8", "lsq-w4a8", "lsq-w4a4"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    recipe = chosen_recipe(request.param).replaced(optimizer=Optimizer(rate=0.002, step_rate=5.0), augment="none")
    start, model = (
        corank.train(network(), IMAGES, recipe, iterations=steps, batch_size=32, device="cpu") for steps in (0, 12)
    )
    file = tmp_path_factory.mktemp("trained") / f"{request.param}.safetensors"
    corank.save(model, file)
    return Trained(model, start, file)


def answer(result: ExportResult, images: Tensor) -> Tensor:
    options = ort.SessionOptions()
    for name, value in result.options.items():
        options.add_session_config_entry(name, value)
    session = ort.InferenceSession(str(result.path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


def constants(path: Path) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer}


@torch.no_grad()
def apart(given: Tensor, expected: Tensor) -> Tensor:
    """Of each sample: the norm of the difference over that of the output."""
    return (given - expected).norm(dim=1) / expected.norm(dim=1)


def test_what_is_loaded_computes_the_same(trained: Trained) -> None:
    assert torch.equal(corank.load(trained.file, network())(IMAGES), trained.model(IMAGES))
    assert tuple(corank.inspect(trained.file)["folded"]) == ("1", "4")


def test_onnx_has_the_trained_steps_before_every_layer_and_agrees(trained: Trained, tmp_path: Path) -> None:
    result = export_onnx(trained.model, tmp_path / "small.onnx", IMAGES[:4])
    steps, untrained = trained.steps(), [layer["input_step"] for layer in corank.inspect(trained.start)["layers"]]
    assert all(step != before for step, before in zip(steps.values(), untrained, strict=True))
    nodes = onnx.load(str(result.path)).graph.node
    scales = {node.output[0]: node.input[1] for node in nodes if node.op_type == "QuantizeLinear"}
    held = constants(result.path)
    assert sorted(float(held[name]) for name in scales.values()) == pytest.approx(sorted(steps.values()), rel=1e-6)
    # A sum that comes in another order may fall on the other side of a step, in a few samples.
    assert float((apart(answer(result, IMAGES), trained.model(IMAGES)) < 1e-5).float().mean()) > 0.6
    assert float(apart(answer(result, IMAGES), trained.model(IMAGES)).max()) < 0.05


def test_int8_has_the_trained_steps_and_agrees(trained: Trained, tmp_path: Path) -> None:
    result = export_onnx_int8(trained.model, tmp_path / "int8.onnx", IMAGES, settings=Int8(samples=32))
    # Where the network rounds its inputs to 4 bits, 8 are finer.
    finest = min(layer["inputs"] for layer in corank.inspect(trained.file)["layers"])
    assert float(apart(answer(result, IMAGES), trained.model(IMAGES)).median()) < (0.03 if finest == 8 else 0.12)
    held = [float(one) for name, one in constants(result.path).items() if name.endswith("_scale") and not one.shape]
    rounding = {n: m.input_quantizer() for n, m in trained.model.named_modules() if isinstance(m, CodedLayer)}
    for name, one in rounding.items():
        assert one is not None
        widened = float(one.step) * (2**one.bits - 1) / 255  # the same range, in 8 bits
        assert any(scale == pytest.approx(widened, rel=1e-5) for scale in held), name


def test_inspect_diff_evaluate_and_report(trained: Trained, tmp_path: Path) -> None:
    record = corank.inspect(trained.file, codes=True)
    bits = corank.recipe_of(trained.file).inputs
    assert bits is not None
    assert [layer["inputs"] for layer in record["layers"]] == [8, bits.bits, bits.bits, 8]
    assert all(0 <= layer["relative_output_error"] < 1 for layer in record["layers"])
    found = corank.diff(trained.file, trained.start)
    assert not found["equal"] and all(0 <= layer["codes_differ"] < 1 for layer in found["layers"])
    assert corank.diff(trained.file, trained.model)["equal"]
    labels = network()(IMAGES).argmax(1)
    scored = corank.evaluate(trained.model, [(IMAGES, labels)], network())
    assert scored.top1 == scored.agreement and scored.top1 is not None and scored.top1 > 50
    pytest.importorskip("matplotlib")
    run = {**corank.inspect(trained.model, codes=True), "command": "train", "label": "trained", "metric": "top-1"}
    write_record(tmp_path / "record.json", run)
    page = write_report(tmp_path / "page.html", [run], "trained")
    assert page.stat().st_size > 10_000


def test_folders_of_the_hub(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    corank.save_pretrained(trained.model, tmp_path / "folder")
    assert "low-bit codes that it trained with." in (tmp_path / "folder" / "README.md").read_text()
    assert torch.equal(corank.from_pretrained(tmp_path / "folder", network)(IMAGES), trained.model(IMAGES))
