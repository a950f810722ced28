"""The base plan: which layers get the bits of the first and last one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from corank.layers import prepare
from corank.presets import PRESETS
from corank.quantization.template import PlanTemplate


class Shifted(nn.Module):
    """Layers, and a parameter that the module's own code adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(width // 4, 64))
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs + self.positions.mean(0))


@pytest.mark.parametrize(("width", "bits"), [(480, 8), (80, 2)])
def test_weights_rounded_without_their_inputs_get_more_bits_where_they_are_few(width: int, bits: int) -> None:
    prepared = prepare(Shifted(width).eval(), lambda model: model(torch.randn(3, 64)))
    assert prepared.blind == {"positions"}
    plan = PlanTemplate(PRESETS["fast"]).plan(prepared, 2)
    found = {name: layer.codec.bits for name, layer in plan.layers.items() if layer.codec is not None}
    assert found == {"positions": bits, "layers.0": 8, "layers.2": 2, "layers.3": 8}
    everywhere = PlanTemplate(PRESETS["fast"], all_layers=True).plan(prepared, 2)
    assert {layer.codec.bits for layer in everywhere.layers.values() if layer.codec is not None} == {2}
