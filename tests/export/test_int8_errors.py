"""What int8 does to one layer at a time, beside the same computed the long way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.calibration import Samples
from corank.losses import kl_divergence

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from corank.export.graph import coded_layers  # noqa: E402
from corank.export.int8_errors import Int8Layer, layer_errors, round_to  # noqa: E402


def test_values_go_to_the_closest_of_256() -> None:
    values, (low, high) = torch.randn(2000) * 3, (-2.0, 5.0)
    step = (high - low) / 255
    grid = torch.tensor([step * (code - round(-low / step)) for code in range(256)])
    closest = grid[(values[:, None] - grid).abs().argmin(1)]
    assert torch.allclose(round_to(values, (low, high)), closest, atol=1e-6)
    assert float(round_to(torch.zeros(1), (low, high))) == 0.0
    assert float(round_to(torch.tensor([9.0]), (0.0, 0.0))) < 1e-20


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def model(images: Tensor) -> nn.Module:
    torch.manual_seed(6)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 5)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return corank.quantize(network.eval(), images, bits=4, budget=0.0, preset="nearest")


@pytest.mark.parametrize("name", ["0", "2", "4"])
def test_shift_and_harm_are_those_of_the_layer_alone(model: nn.Module, images: Tensor, name: str) -> None:
    layer = coded_layers(model)[name]
    weight = layer.weight + 0.01 * torch.randn(layer.weight.shape)
    ends = (-4.0, 4.0)
    outputs: dict[str, Tensor] = {}
    other = copy.deepcopy(model)
    alone = layer.to_float()
    alone.weight = nn.Parameter(weight, requires_grad=False)
    axis = 1 if name != "4" else -1

    def replaced(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs["error"] = alone(round_to(args[0], ends)) - output
        mean = outputs["error"].transpose(axis, -1).flatten(0, -2).mean(0)
        outputs["shift"] = mean
        return output + outputs["error"] - (mean if axis == -1 else mean[:, None, None])

    other.get_submodule(name).register_forward_hook(replaced)
    with torch.no_grad():
        loss = float(kl_divergence(other(images), model(images)))
    drawn = [
        layer_errors(model, {name: Int8Layer(layer, weight, ends)}, Samples.of(images, 48, 48), seed)[name]
        for seed in range(40)
    ]
    assert torch.allclose(drawn[0].shift, outputs["shift"], atol=1e-6)
    harm = sum(one.harm for one in drawn) / len(drawn)
    assert harm == pytest.approx(loss, rel=0.25)
    assert drawn[0].operations == layer.weight[0].numel() * outputs["error"][0].numel()


def test_the_model_is_as_it_was(model: nn.Module, images: Tensor) -> None:
    before = model(images)
    layers = coded_layers(model)
    judged = {name: Int8Layer(layer, layer.weight, (-9.0, 9.0)) for name, layer in layers.items()}
    found = layer_errors(model, judged, Samples.of(images, 48, 8))
    assert set(found) == set(layers)
    assert torch.equal(model(images), before) and not before.requires_grad


def test_outputs_without_a_gradient_have_no_harm(images: Tensor) -> None:
    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)).argmax(1)

    conv = corank.quantize(nn.Sequential(nn.Conv2d(3, 4, 3)), images, bits=4, preset="nearest").get_submodule("0")
    labels = Labels().eval()
    labels.conv = conv  # pyright: ignore
    layers = coded_layers(labels)
    judged = {"conv": Int8Layer(layers["conv"], layers["conv"].weight + 1, (-9.0, 9.0))}
    found = layer_errors(labels, judged, Samples.of(images, 8))
    assert found["conv"].harm == 0.0
    assert found["conv"].shift.abs().max() > 0
