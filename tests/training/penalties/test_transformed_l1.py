"""Transformed l1: its limits, its derivative, and what it is taken of."""

from __future__ import annotations

import pytest
import torch
from training.stepping import state_of

from corank.codecs import StatsQ
from corank.errors import ConfigError
from corank.training.described import described, read
from corank.training.penalties import Penalty, TransformedL1
from corank.training.penalties.transformed_l1 import transformed_l1
from corank.training.recipe import Recipe
from corank.training.weights import StraightThrough

WEIGHTS = torch.tensor([-2.0, -1.0, -0.3, 0.0, 1e-3, 0.5, 1.0, 7.0], dtype=torch.float64)


@pytest.mark.parametrize("a", [0.01, 1.0, 30.0])
def test_values_and_derivative(a: float) -> None:
    weight = WEIGHTS.clone().requires_grad_()
    found = transformed_l1(weight, a)
    assert found[[3, 1, 6]].tolist() == pytest.approx([0, 1, 1])
    found.sum().backward()
    expected = a * (1 + a) / (a + WEIGHTS.abs()).square() * WEIGHTS.sign()
    assert torch.allclose(weight.grad, expected)
    assert float(weight.grad[3]) == 0


def test_it_goes_from_the_count_to_the_magnitude() -> None:
    assert torch.allclose(transformed_l1(WEIGHTS, 1e-9), (WEIGHTS != 0).double(), atol=1e-5)
    assert torch.allclose(transformed_l1(WEIGHTS, 1e9), WEIGHTS.abs(), rtol=1e-6)


def test_it_is_the_sum_over_the_weights_that_layers_compute_with() -> None:
    for way in (None, StraightThrough(StatsQ(2))):
        state = state_of(Recipe(weights=way, edge=way))
        total = sum(float(transformed_l1(one.computed().detach(), 0.5).sum()) for one in state.layers.values())
        added = TransformedL1(0.3, 0.5)(state, torch.zeros(()))
        assert float(added.detach()) == pytest.approx(0.3 * total, rel=1e-5)
        added.backward()
        assert all(bool(one.latent.grad.any()) for one in state.layers.values())
    assert float(TransformedL1(0.0)(state, torch.zeros(()))) == 0


def test_settings() -> None:
    assert read(described(TransformedL1(0.2, 2.0)), Penalty) == TransformedL1(0.2, 2.0)
    for given in ({"weight": -1.0}, {"a": 0.0}, {"a": "1"}):
        with pytest.raises(ConfigError, match=r"number|factor"):
            TransformedL1(**given)
