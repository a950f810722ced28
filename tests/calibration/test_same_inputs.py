from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.calibration import Samples, TensorMark, collect
from corank.statistics import Gram


class Router(nn.Module):
    """Two layers that read the same tensor, but for batches whose first number is negative."""

    def __init__(self, parts: bool) -> None:
        super().__init__()
        self.one, self.two, self.parts = nn.Linear(3, 2), nn.Linear(3, 4), parts

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.one(inputs)
        other = inputs * 2 if self.parts and float(inputs[0, 0]) < 0 else inputs
        return torch.cat([found, self.two(other)], 1)


def moments(model: Router, inputs: Tensor) -> tuple[Gram, Gram]:
    found = collect(model, {"one": model.one, "two": model.two}, Samples.of(inputs, len(inputs), 4))
    one, two = found["one"][Gram], found["two"][Gram]
    assert isinstance(one, Gram) and isinstance(two, Gram)
    return one, two


def test_layers_that_read_one_tensor_share_its_moments() -> None:
    inputs = torch.randn(8, 3)
    one, two = moments(Router(parts=False), inputs)
    assert one is two
    assert torch.allclose(two.matrix[0], inputs.T @ inputs / 8, atol=1e-6)


def test_a_layer_that_parts_from_another_later_has_moments_of_all_that_it_read() -> None:
    inputs = torch.randn(8, 3)
    inputs[0, 0], inputs[4, 0] = 1.0, -1.0
    one, two = moments(Router(parts=True), inputs)
    read = torch.cat([inputs[:4], inputs[4:] * 2])
    assert torch.allclose(one.matrix[0], inputs.T @ inputs / 8, atol=1e-6)
    assert torch.allclose(two.matrix[0], read.T @ read / 8, atol=1e-6)


def test_a_mark_tells_its_tensor_until_that_is_written_to() -> None:
    tensor = torch.zeros(3)
    mark = TensorMark(tensor)
    assert mark.is_of(tensor) and not mark.is_of(tensor.clone()) and not mark.is_of(tensor[:])
    tensor += 1
    assert not mark.is_of(tensor)
