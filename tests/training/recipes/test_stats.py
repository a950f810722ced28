"""StatsQ's recipe, and what the grid and its gradient owe by the paper."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import Binary, StatsQ
from corank.errors import ConfigError
from corank.training.callbacks import Meters
from corank.training.inputs import LearnedStepInputs
from corank.training.recipe import Recipe
from corank.training.recipes import RECIPES
from corank.training.weights import StraightThrough, WeightStart


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_grid_is_the_papers(bits: int) -> None:
    recipe = RECIPES["stats"](bits, None)
    assert recipe.weights == StraightThrough(StatsQ(bits)) and recipe.inputs is None
    weight = torch.randn(4, 4096)
    trained, start = recipe.weights.start(WeightStart(weight))
    assert torch.equal(start, weight)
    value = trained(weight)
    scale, half = (2 * weight.abs().mean(1, keepdim=True)).half().float(), 2 ** (bits - 1)
    for row in value:
        levels = row.unique()
        assert len(levels) == 2**bits if bits < 8 else len(levels) > 128  # all of them, symmetric, none of them zero
        assert levels.abs().min() > 0
        torch.testing.assert_close(levels, -levels.flip(0)) if bits < 8 else None
    expected = scale * (((weight / scale).clamp(-1, 1 - 1e-6) * half - 0.5).round() + 0.5) / half
    # half to even in the paper's formula, up in ours: ties have no measure
    torch.testing.assert_close(value, expected)


def test_values_scale_with_the_weights() -> None:
    weight = torch.randn(4, 64)
    trained, _ = StraightThrough(StatsQ(3)).start(WeightStart(weight))
    torch.testing.assert_close(trained(8 * weight), 8 * trained(weight), rtol=0, atol=0)


def test_the_gradient_is_that_of_the_value_for_clipped_weights_too() -> None:
    weight = (3 * torch.randn(4, 64)).requires_grad_()
    trained, _ = StraightThrough(StatsQ(2)).start(WeightStart(weight.detach()))
    upstream = torch.randn(4, 64)
    (trained(weight) * upstream).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, upstream)


def test_one_bit_is_binary_and_inputs_learn_their_step() -> None:
    recipe = RECIPES["stats"](1, 4)
    assert recipe.weights == StraightThrough(Binary()) and recipe.inputs == LearnedStepInputs(4)
    assert Meters() in recipe.callbacks
    assert Recipe.from_json(recipe.to_json()) == recipe
    for bits, inputs in ((9, None), (0, None), (2, 1)):
        with pytest.raises(ConfigError):
            RECIPES["stats"](bits, inputs)
