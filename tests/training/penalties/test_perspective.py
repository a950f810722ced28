"""The perspective penalty: its closed form is the minimum that it stands for, convex, and without jumps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from training.tiny_state import small_network, state_of

from corank.errors import ConfigError
from corank.training.penalties import Perspective
from corank.training.penalties.perspective import indicator, perspective
from corank.training.recipe import Recipe

ALPHAS = (1e-3, 0.1, 0.5, 0.8)


def draws(count: int, size: int, seed: int = 0) -> Tensor:
    """Groups ``(count, size)`` of all magnitudes within a box of side 2 * 1.5."""
    generator = torch.Generator().manual_seed(seed)
    raw = 2 * torch.rand(count, size, generator=generator, dtype=torch.float64) - 1
    return raw * 1.5 * 10 ** (-3 * torch.rand(count, 1, generator=generator, dtype=torch.float64))


def penalty(groups: Tensor, alpha: float, bound: float = 1.5) -> Tensor:
    return perspective(groups.square().sum(1), groups.abs().amax(1), alpha, bound)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("size", (1, 3, 40))
def test_closed_form_is_the_numerical_minimum(alpha: float, size: int) -> None:
    groups = draws(200, size)
    square, low = groups.square().sum(1), groups.abs().amax(1) / 1.5
    # The function of y is convex: a search by thirds ends at its minimum.
    left, right = low.clone(), torch.ones_like(low)

    def cost(y: Tensor) -> Tensor:
        return alpha * square / y + (1 - alpha) * y

    for _ in range(200):
        a, b = left + (right - left) / 3, right - (right - left) / 3
        better = cost(a) < cost(b)
        left, right = torch.where(better, left, a), torch.where(better, b, right)
    found = penalty(groups, alpha)
    torch.testing.assert_close(found, cost(left), rtol=1e-9, atol=1e-12)
    y = indicator(square, groups.abs().amax(1), alpha, 1.5)
    torch.testing.assert_close(cost(y), found, rtol=1e-9, atol=1e-12)
    assert bool(((low <= y) & (y <= 1)).all())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_convex_on_the_box(alpha: float) -> None:
    one, other = draws(2000, 4, 1), draws(2000, 4, 2)
    share = torch.rand(2000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    between = penalty(share * one + (1 - share) * other, alpha)
    line = share[:, 0] * penalty(one, alpha) + (1 - share[:, 0]) * penalty(other, alpha)
    assert bool((between <= line + 1e-12).all())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_continuous_where_the_cases_meet(alpha: float) -> None:
    c = math.sqrt(alpha / (1 - alpha))
    for direction in draws(50, 6, 4):
        norm, largest = float(direction.norm()), float(direction.abs().amax())
        edge = 1 / max(largest / 1.5, c * norm)  # A begins here
        near = torch.stack([direction * edge * (1 + step) for step in (-1e-9, 1e-9)])
        below, above = penalty(near, alpha)
        assert abs(float(below - above)) < 1e-6 * (1 + float(above))
    # Between B and C: |w|_inf / M = c |w|; along a vector whose first number alone grows.
    rest, below, above = torch.full((5,), 0.1, dtype=torch.float64), [], []
    for shift, into in ((-1e-9, below), (1e-9, above)):
        top = math.sqrt(0.05 * (1.5 * c) ** 2 / (1 - (1.5 * c) ** 2)) if 1.5 * c < 1 else None
        if top is None:  # B alone
            return
        into.append(
            float(penalty(torch.cat([torch.tensor([top * (1 + shift)], dtype=torch.float64), rest])[None], alpha))
        )
    assert below[0] == pytest.approx(above[0], rel=1e-6)


def test_zero_costs_nothing_and_pulls_nowhere() -> None:
    groups = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    found = penalty(groups, 0.1).sum()
    found.backward()
    assert float(found.detach()) == 0
    assert groups.grad is not None and not bool(groups.grad.any())


def test_a_single_number_has_the_known_form() -> None:
    one = torch.tensor([[0.2]], dtype=torch.float64)
    assert float(penalty(one, 0.01, 2.0)) == pytest.approx(0.2 * (0.01 * 2.0 + 0.99 / 2.0))


def test_gradient_is_that_of_the_formula() -> None:
    groups = draws(20, 5, 6).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda one: penalty(one, 0.1), (groups,), atol=1e-5)


def test_a_recipe_carries_it() -> None:
    recipe = Recipe(weights=None, edge=None, edge_inputs=None, start="float", penalties=(Perspective(3.0, 0.2),))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_groups_hold_bias_and_norm() -> None:
    torch.manual_seed(0)
    net = small_network()
    recipe = Recipe(weights=None, edge=None, edge_inputs=None, start="float", penalties=(Perspective(),))
    state, one = state_of(net, recipe), Perspective(weight=2.0, alpha=0.1, bound=1.0)
    state.norms["0"] = net[1]
    one.start(state)
    found = one(state, torch.zeros(()))
    conv, norm, other, last = net[0], net[1], net[3], net[6]
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert isinstance(other, nn.Conv2d) and isinstance(last, nn.Linear)
    rows = [
        torch.cat([conv.weight.flatten(1), norm.weight[:, None], norm.bias[:, None]], 1),
        *(torch.cat([layer.weight.flatten(1), layer.bias[:, None]], 1) for layer in (other, last)),
    ]
    parts = [penalty(group, 0.1, float(group.detach().abs().amax())) for group in rows]
    total = sum(group.shape[1] * part.sum() for group, part in zip(rows, parts, strict=True))
    torch.testing.assert_close(found, 2.0 * total / sum(group.numel() for group in rows))
    kept = dict(state.kept)
    with torch.no_grad():
        norm.weight.mul_(5)
    one.start(state)  # of a run that goes on: M stays that of the start
    assert state.kept == kept


def test_settings_that_cannot_be() -> None:
    for given in ({"weight": -1}, {"alpha": 0.0}, {"alpha": 1}, {"bound": 0.0}, {"weight": "2"}):
        with pytest.raises(ConfigError, match=r"e\.g\. Perspective"):
            Perspective(**given)
