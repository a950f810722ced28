"""DenseShift as a recipe: from scratch with the paper's optimizer, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import corank
from corank.data import load
from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.models import resolve
from corank.training.recipe import Optimizer
from corank.training.recipes import RECIPES
from corank.training.state import TrainedLayer, parametrized
from corank.training.weights import DenseShiftLatents, WeightStart, WeightTraining
from corank.verbs.train import train


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


@pytest.mark.parametrize("name", ["dense-shift", "s3", "power-of-two", "dorefa"])
def test_trained_files_hold_powers_of_two_and_norms(name: str, tmp_path: Path) -> None:
    """The recipes without a scale a row, end to end: norms stay, the file gives the network that trained."""
    recipe, data = RECIPES[name](3, None), load("digits:train")
    trained = train(resolve("digits").model, data, recipe, iterations=2, batch_size=16, samples=64)
    corank.save(trained, tmp_path / "small.safetensors")
    again, images = corank.load(tmp_path / "small.safetensors", resolve("digits").model), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(images), trained(images))
    assert isinstance(again.get_submodule("stage1.0.bn1"), nn.BatchNorm2d)
    values = trained.get_submodule("stage2.0.conv1").weight.detach().unique()
    assert len(values) <= 8
    if name != "dorefa":
        assert bool((values[values != 0].abs().frexp().mantissa == 0.5).all())


def test_the_start_from_codes_computes_what_quantize_gives() -> None:
    recipe = RECIPES["dense-shift"](3, None).replaced(start="codes", loss="distil", optimizer=Optimizer())
    started = train(resolve("digits").model, load("digits:train"), recipe, iterations=0, samples=256)
    assert corank.evaluate(started, load("digits:test")).top1 > 95
