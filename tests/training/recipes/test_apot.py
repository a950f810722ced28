"""APoT: its levels under a learned scale."""

from __future__ import annotations

import pytest
import torch
from reference.levels import additive_powers

from corank.training.recipes import RECIPES
from corank.training.weights import WeightStart


@pytest.mark.parametrize("bits", [3, 4, 5])
def test_values_are_the_levels_times_the_learned_scale(bits: int) -> None:
    recipe, weight = RECIPES["apot"](bits, 4), torch.randn(6, 60)
    assert recipe.weights is not None and recipe.inputs is not None and recipe.inputs.bits == 4
    running, start = recipe.weights.start(WeightStart(weight))
    with torch.no_grad():
        running.get_parameter("growth").add_(0.1 * torch.randn(6, 1))
        value, coded = running(start), running.coded(start)
    assert torch.equal(coded.decode(), value)
    scale = running.get_buffer("scale") * running.get_parameter("growth").detach().exp()
    allowed = torch.tensor(additive_powers(bits))
    assert float(((value / scale).abs()[..., None] - allowed).abs().amin(-1).max()) < 1e-6


def test_the_gradient_of_the_scale_is_the_papers() -> None:
    """The level less w / s inside, the sign outside."""
    recipe = RECIPES["apot"](4, None)
    assert recipe.weights is not None
    weight, upstream = torch.randn(2, 40), torch.randn(2, 40)
    running, start = recipe.weights.start(WeightStart(weight))
    scale = running.get_buffer("scale")
    running(start.requires_grad_()).backward(upstream)
    with torch.no_grad():
        level = running(start) / scale
    ratio = weight / scale
    each = torch.where(ratio.abs() <= 1, level - ratio, ratio.sign())
    expected = scale * (upstream * each).sum(1, keepdim=True)
    assert torch.allclose(running.get_parameter("growth").grad, expected, atol=1e-6)
