"""The surrogate of the condition number: the properties that the specification names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from training.stepping import state_of

from corank.errors import ConfigError
from corank.matrix import Geometry
from corank.training.callbacks.condition_numbers import condition_number
from corank.training.described import described, read
from corank.training.penalties import ConditionNumber, Penalty
from corank.training.penalties.condition_number import condition_surrogate, stacked
from corank.training.recipe import Recipe
from corank.training.state import TrainedLayer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def surrogate(weight: Tensor, ridge: float = 1e-14) -> float:
    return float(condition_surrogate(weight, ridge))


@pytest.mark.parametrize("shape", [(1, 4, 9), (1, 9, 4), (3, 2, 5)])
def test_it_is_the_definition(shape: tuple[int, int, int]) -> None:
    weight = drawn(*shape)
    whole = torch.block_diag(*weight)
    short = whole if whole.shape[0] <= whole.shape[1] else whole.T
    values = torch.linalg.svdvals(short)
    expected = math.log(float(values.square().mean())) - float(values.square().log().mean())
    assert surrogate(weight) == pytest.approx(expected, rel=1e-9)


def test_it_is_zero_for_equal_singular_values_alone() -> None:
    orthogonal = torch.linalg.qr(drawn(6, 6)).Q[:4][None]
    assert surrogate(orthogonal) == pytest.approx(0, abs=1e-12)
    assert all(surrogate(drawn(1, 4, 6, seed=seed)) > 1e-3 for seed in range(20))


@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e5])
def test_it_does_not_hang_on_the_scale(scale: float) -> None:
    weight = drawn(1, 5, 12)
    for ridge in (1e-12, 1e-6, 1e-2):  # whatever the ridge: it is a share
        assert surrogate(scale * weight, ridge) == pytest.approx(surrogate(weight, ridge), rel=1e-9)


def test_it_bounds_the_condition_number() -> None:
    worst = 0.0
    for seed in range(300):
        rows, columns = 2 + seed % 5, 2 + seed % 7
        weight = drawn(1, rows, columns, seed=seed)
        bound = 2 * math.exp(min(rows, columns) * surrogate(weight) / 2)
        worst = max(worst, condition_number(weight) / bound)
    assert 0.5 < worst <= 1 + 1e-6


def test_rows_and_columns_of_zeros_are_left_out() -> None:
    weight = drawn(1, 5, 8)
    dead = torch.zeros(1, 9, 12, dtype=torch.float64)
    dead[:, 2:7, 1:9] = weight
    assert surrogate(dead) == pytest.approx(surrogate(weight), rel=1e-12)
    few = dead.clone()
    few[:, :, 4:] = 0  # three columns of five rows: the columns are the lesser side
    assert surrogate(few) == pytest.approx(surrogate(weight[:, :, :3]), rel=1e-12)
    assert surrogate(torch.zeros(1, 3, 4)) == 0


def test_a_matrix_that_lost_a_direction_has_a_finite_value_and_gradient() -> None:
    weight = drawn(1, 4, 9)
    weight[0, 3] = weight[0, 2]
    weight.requires_grad_()
    found = condition_surrogate(weight)
    found.backward()
    found = found.detach()
    assert math.isfinite(found.item()) and bool(torch.isfinite(weight.grad).all()) and bool(weight.grad.any())
    assert found.item() > surrogate(drawn(1, 4, 9))


def test_its_gradient_is_that_of_differences() -> None:
    weight = drawn(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(condition_surrogate, (weight,))
    tall = drawn(1, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(condition_surrogate, (tall,))


def test_steps_along_it_lower_the_condition_number() -> None:
    weight = (drawn(1, 8, 16) * torch.linspace(0.1, 3, 8, dtype=torch.float64)[None, :, None]).requires_grad_()
    before = condition_number(weight)
    for _ in range(200):
        (gradient,) = torch.autograd.grad(condition_surrogate(weight), weight)
        weight = (weight - 0.5 * gradient).detach().requires_grad_()
    assert condition_number(weight) < before / 4


def test_the_penalty_is_the_sum_over_the_layers() -> None:
    state = state_of(Recipe(weights=None, edge=None))
    expected = [float(condition_surrogate(stacked(layer)).detach()) for layer in state.layers.values()]
    added = ConditionNumber(0.2)(state, torch.zeros(()))
    assert added.dtype == torch.float32
    assert float(added.detach()) == pytest.approx(0.2 * sum(expected), rel=1e-5)
    added.backward()
    assert all(bool(one.latent.grad.any()) for one in state.layers.values())
    assert float(ConditionNumber(0.0)(state, torch.zeros(()))) == 0


def test_grouped_layers_are_block_diagonal() -> None:
    module = nn.Conv2d(8, 8, 3, groups=8)
    found = stacked(TrainedLayer(module, Geometry.of(module)))
    assert found.shape == (8, 1, 9)
    lengths = module.weight.detach().flatten(1).norm(dim=1)
    assert condition_number(found) == pytest.approx(float(lengths.amax() / lengths.amin()), rel=1e-5)


def test_settings() -> None:
    assert read(described(ConditionNumber(0.5)), Penalty) == ConditionNumber(0.5)
    with pytest.raises(ConfigError, match="a factor from 0"):
        ConditionNumber(-0.1)
