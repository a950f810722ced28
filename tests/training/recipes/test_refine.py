"""The recipe that leaves codes alone, from ``quantize``'s start to coded layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import corank
from corank.codecs import Binary, Uniform
from corank.data import load as load_images
from corank.errors import ConfigError
from corank.layers import CodedLayer
from corank.losses import kl_divergence
from corank.models.digits import digits_net
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import Scales


def test_every_width() -> None:
    for bits in range(1, 9):
        recipe = RECIPES["refine"](bits, None)
        assert recipe.weights == Scales(Binary() if bits == 1 else Uniform(bits, range="mse", half=bits < 8))
        assert Recipe.from_json(recipe.to_json()) == recipe
    assert RECIPES["refine"](4, 4).inputs == LearnedStepInputs(4)
    with pytest.raises(ConfigError):
        RECIPES["refine"](9, None)


def test_it_comes_nearer_without_moving_a_code() -> None:
    model, images = digits_net(), load_images("digits:train").tensor()[:160]
    found: list[tuple[float, list[Tensor]]] = []
    for steps in (0, 60):
        recipe = RECIPES["refine"](1, None).replaced(iterations=steps, augment="none", precision="float32")
        small = corank.train(model, images, recipe)
        layers = [module for module in small.modules() if isinstance(module, CodedLayer)]
        with torch.no_grad():
            distance = float(kl_divergence(small(images), model(images)))
        found.append((distance, [layer.code().weight.codes for layer in layers]))
    (before, first), (after, last) = found
    assert after < 0.7 * before
    assert all(torch.equal(one, other) for one, other in zip(first, last, strict=True))
