"""LSQ: which codec at which width, and the gradient of a step by hand."""

from __future__ import annotations

import pytest
import torch

from corank.codecs import Binary, Uniform
from corank.errors import ConfigError
from corank.training.inputs import LearnedStepInputs
from corank.training.recipes import RECIPES
from corank.training.weights import LearnedStep, WeightStart


def test_every_width() -> None:
    for bits in range(1, 9):
        recipe = RECIPES["lsq"](bits, None)
        codec = Binary() if bits == 1 else Uniform(bits, range="mse", half=bits < 8)
        assert recipe.weights == LearnedStep(codec) and recipe.inputs is None
    assert RECIPES["lsq"](2, 3).inputs == LearnedStepInputs(3)
    for bits, inputs in ((0, None), (9, None), (4, 1), (4, 9)):
        with pytest.raises(ConfigError):
            RECIPES["lsq"](bits, inputs)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gradients_by_hand(bits: int) -> None:
    """Of the step: the level less its offset outside, less w / s inside; of a weight: 1 inside, 0 outside."""
    recipe = RECIPES["lsq"](bits, None)
    assert recipe.weights is not None
    weight, upstream = torch.randn(3, 50), torch.randn(3, 50)
    running, start = recipe.weights.start(WeightStart(weight))
    leaf = start.clone().requires_grad_()
    running(leaf).backward(upstream)
    coded = running.coded(start)
    book = recipe.weights.stored.fit(weight)
    low, high = float(book.levels[0]), float(book.levels[-1])
    level = book.levels[coded.codes.long()]
    place = weight / book.scale + book.offset
    inside = (place >= low) & (place <= high)
    each = torch.where(inside, level - place, level - book.offset)
    expected = book.scale * (upstream * each).sum(1, keepdim=True)
    assert torch.allclose(running.get_parameter("growth").grad, expected, atol=1e-5)
    assert torch.allclose(leaf.grad, upstream * inside)
