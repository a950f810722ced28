"""AdamP's recipe, and what rounding leaves of the invariance that AdamP looks for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from corank.codecs import StatsQ, Uniform
from corank.training.callbacks import Meters
from corank.training.recipe import Optimizer, Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import LearnedStep, StraightThrough, WeightStart, WeightTraining


def test_it_is_stats_with_another_optimizer() -> None:
    recipe = RECIPES["adamp"](2, 4)
    assert recipe == RECIPES["stats"](2, 4).replaced(optimizer=Optimizer("adamp"))
    assert Meters() in recipe.callbacks
    assert Recipe.from_json(recipe.to_json()) == recipe


def gradient(way: WeightTraining, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the float weight of a convolution before a batch norm, and the weight it computed with."""
    trained, weight = way.start(WeightStart(weight))
    weight = weight.clone().requires_grad_()
    value = trained(weight)
    norm = nn.BatchNorm2d(len(weight), eps=1e-12).double()
    images = torch.randn(32, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.randn(32, len(weight), 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    output = norm(F.conv2d(images, value.double().unflatten(1, (4, 3, 3))))
    (output * target).sum().backward()
    assert weight.grad is not None
    return weight.grad, value.detach()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gradient_is_orthogonal_to_the_rounded_weight_and_not_to_the_float_one(bits: int) -> None:
    weight = torch.randn(8, 36)
    found, value = gradient(StraightThrough(StatsQ(bits)), weight)
    along = F.cosine_similarity(found, value, dim=1).abs()
    assert along.max() < 1e-5
    beside = F.cosine_similarity(found, weight, dim=1).abs()
    # AdamP projects channels where all are below this
    assert along.max() < 0.1 / 36**0.5 < beside.max()


def test_the_layers_function_knows_only_the_direction_where_the_scale_follows() -> None:
    weight = torch.randn(8, 36)
    followed, _ = StraightThrough(StatsQ(2)).start(WeightStart(weight))
    learned, _ = LearnedStep(Uniform(2)).start(WeightStart(weight))
    codes = [way.coded(weight).codes for way in (followed, learned)]
    assert torch.equal(followed.coded(2 * weight).codes, codes[0])
    assert not torch.equal(learned.coded(2 * weight).codes, codes[1])
