"""DenseShift as a recipe: from scratch with the paper's optimizer, and it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.recipes import RECIPES
from corank.training.state import TrainedLayer, parametrized
from corank.training.weights import DenseShiftLatents, WeightStart, WeightTraining


def losses(way: WeightTraining, fresh: bool) -> tuple[float, float]:
    """Of a small network behind a norm, before and after some steps."""
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    module = model[0]
    assert isinstance(module, nn.Linear)
    weight, start = way.start(WeightStart(module.weight.detach().clone(), fresh=fresh))
    layer = TrainedLayer(module, Geometry.of(module), weight)
    parametrized(layer)
    layer.rewrite(start)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1, momentum=0.9)
    inputs = torch.randn(256, 8)
    labels = (inputs[:, 0] > 0) * 2 + (inputs[:, 1] * inputs[:, 2] > 0).long()
    found = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    with torch.no_grad():
        assert torch.equal(weight.coded(layer.matrix).decode(), layer.computed())
    assert torch.equal(layer.matrix, start)  # the float weight does not train
    return found[0], found[-1]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_learns_from_scratch_and_from_float(bits: int) -> None:
    recipe = RECIPES["dense-shift"](bits, None)
    assert recipe.weights == DenseShiftLatents(bits) and recipe.inputs is None
    assert (recipe.start, recipe.loss, recipe.optimizer.name) == ("scratch", "labels", "sgd")
    for fresh in (True, False):
        before, after = losses(recipe.weights, fresh)
        assert after < 0.6 * before


def test_other_starts_and_widths() -> None:
    for start in ("codes", "float"):
        assert RECIPES["dense-shift"](3, 4).replaced(start=start).start == start
    with pytest.raises(ConfigError, match="2 to 4"):
        RECIPES["dense-shift"](5, None)
